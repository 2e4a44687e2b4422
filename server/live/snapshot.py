"""A run as it was at one moment, what came of its clients and rounds, and what follows from it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from powerctl.fields import Count
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import RoundRow, finite, summary
from wattfed.server.run.judging import judge
from wattfed.server.run.participants import Participants
from wattfed.strategies.protocol import ClientNumber, Clock, MostSeconds, RoundReport
from wattfed.strategies.round.ledger import Ledger, RefusedReply
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

MOST_CLIENTS, MOST_REFUSALS = 1000, 100  # in one record
_NAMED = 20  # clients of a round in one line


@dataclass
class ClientAccount:
    """One client: how often it was asked, trained and declined, and its last training.

    `energy_j` is that of training in all rounds; `budget_left_j` is infinite without a budget.
    `name` is its board or its node. `trouble` says what went wrong in its last round, if something
    did; `unable` why it cannot take part now, if it cannot.
    """

    client: int
    name: str = ""
    asked: int = 0
    trained: int = 0
    declined: int = 0
    lost: int = 0
    violations: int = 0
    energy_j: float = 0.0
    budget_left_j: float = math.inf
    last_round: int = 0
    last: RoundReport | None = None
    trouble: str = ""
    unable: str = ""

    def enter(self, server_round: int, report: RoundReport) -> None:
        """A report of this client."""
        self.last_round = server_round
        self.declined += bool(report.decline)
        self.lost += bool(report.lost)
        self.violations += bool(_broken(report))
        self.energy_j += report.energy_j
        self.budget_left_j = report.budget_left_j
        self.trouble = trouble_of(report)
        if report.minibatches:
            self.trained += 1
            self.last = report

    @property
    def words(self) -> str:
        """Why it cannot take part now, else what went wrong in its last round; empty if nothing."""
        return self.unable or self.trouble

    @property
    def share_left(self) -> float:
        """Of its energy budget, between 0 and 1."""
        left_j = max(self.budget_left_j, 0.0)
        return left_j / (left_j + self.energy_j) if math.isfinite(left_j) and left_j else 0.0

    def record(self) -> dict[str, Any]:
        """For JSON; what there is not is null."""
        values = {key: value for key, value in vars(self).items() if key != "last"}
        last = self.last
        values["mode"] = last.modes[-1] if last and last.modes else ""
        for key in ("expected_time_s", "time_s", "expected_energy_j", "energy_j"):
            values[f"last_{key}"] = getattr(last, key) if last else None
        return finite(values)


@dataclass
class RoundWork:
    """A round's training as it was predicted and measured: the longest, and the energy of all."""

    expected_time_s: float = 0.0
    time_s: float = 0.0
    expected_energy_j: float = 0.0
    energy_j: float = 0.0

    def enter(self, report: RoundReport) -> None:
        """The report of a client that trained."""
        self.expected_time_s = max(self.expected_time_s, report.expected_time_s)
        self.time_s = max(self.time_s, report.time_s)
        self.expected_energy_j += report.expected_energy_j
        self.energy_j += report.energy_j


def trouble_of(report: RoundReport) -> str:
    """What went wrong with a client in a round, in a few words; empty if nothing did."""
    if report.lost:
        return f"update lost: {report.lost}"
    if report.decline:
        return f"declined: {report.decline}"
    if broken := _broken(report):
        return f"over its {' and '.join(broken)} limit"
    if not report.used:
        return "update came too late"
    if report.guard_steps:
        return f"stepped down: {report.guard_cause}"
    return f"stopped early: {report.stopped}" if report.stopped else ""


def _broken(report: RoundReport) -> list[str]:
    limits = (
        ("power", report.broke_power_limit),
        ("energy", report.broke_budget),
        ("latency", report.broke_latency),
    )
    return [name for name, is_broken in limits if report.minibatches and is_broken]


@dataclass(frozen=True)
class UnderWay:
    """A round that goes on: who trains in it, by when, and since when (a Unix time)."""

    round: Count
    clients: tuple[ClientNumber, ...]
    deadline_s: MostSeconds
    began_s: Clock


@dataclass(frozen=True)
class Snapshot:
    """A run as it was when it was looked at.

    Attributes
    ----------
    folder : Path
        Of its results.
    config : RunConfig
        The run.
    rows : tuple of RoundRow
        Its history, round 0 first; empty until the initial model has been evaluated.
    work : mapping of int to RoundWork
        Training as predicted and measured, by round.
    refusals : tuple of Refusal
        Replies that were refused, the last at the end.
    clients : tuple of ClientAccount
        All that were ever asked, or cannot take part, by number.
    participants : Participants
        What they are called, and why some cannot take part.
    under_way : UnderWay or None
        The round after the last, if it has begun.
    is_finished : bool
        Whether all of it is there; else it goes on, or was killed.
    written_s : float
        When something was last written, as a Unix time.
    version : str
        The same only as long as nothing has changed.
    """

    folder: Path
    config: RunConfig
    rows: tuple[RoundRow, ...]
    work: Mapping[int, RoundWork]
    refusals: tuple[RefusedReply, ...]
    clients: tuple[ClientAccount, ...]
    participants: Participants
    under_way: UnderWay | None
    is_finished: bool
    written_s: float
    version: str

    @property
    def round(self) -> int:
        """How many rounds are over."""
        return self.rows[-1].round if self.rows else 0

    @property
    def target(self) -> Target:
        """The metric that the run is judged by."""
        return self.rows[-1].target if self.rows else Target()

    @property
    def ledger(self) -> Ledger:
        """The rounds' entries, without the reports."""
        return Ledger([row.entry for row in self.rows if row.entry is not None])

    @property
    def summary(self) -> dict[str, Any]:
        """As `wattfed.server.run.history.summary` has it; empty before there is a row."""
        return (
            summary(self.config, self.rows, self.ledger, self.participants.charged)
            if self.rows
            else {}
        )

    @property
    def n_clients(self) -> int:
        """Clients that the run waited for, and at least all that were seen."""
        seen = (account.client + 1 for account in self.clients[-1:])
        return max([self.participants.clients, self.config.min_nodes, *seen])

    @property
    def charged(self) -> str:
        """What a minibatch is charged as, and what that is from."""
        return self.participants.charged_words(self.config)

    @property
    def policy(self) -> str:
        """The policy that selects, with its power policy where it does not choose modes itself."""
        return Contender.of(self.config).policy

    @property
    def judgement(self) -> list[str]:
        """What can be said of the run until now, in sentences; nothing before its first round."""
        if not self.round:
            return []
        trained = {account.client: account.trained for account in self.clients}
        judged = judge(
            self.config, self.rows, trained, self.participants, is_finished=self.is_finished
        )
        now = [self.participants.unable_words + "."] if self.participants.n_unable else []
        return [*judged.sentences(), *(now if not self.is_finished else [])]

    def heard_last(self, n: int) -> list[ClientAccount]:
        """At most so many clients, those asked last; by number."""
        latest = sorted(self.clients, key=lambda account: -account.last_round)[:n]
        return sorted(latest, key=lambda account: account.client)

    def record(self) -> dict[str, Any]:
        """For JSON: the clients and refusals heard of last, not more than so many."""
        rounds = [
            finite({**row.flat(), **_prefixed(self.work.get(row.round, RoundWork()))})
            for row in self.rows
        ]
        under_way = asdict(self.under_way) if self.under_way else {}
        return {
            "folder": str(self.folder),
            "finished": self.is_finished,
            "written_unix_s": self.written_s,
            "round": self.round,
            "rounds_wanted": self.config.rounds,
            "under_way": finite(under_way),
            "config": self.config.to_flower(),
            "charged": self.charged,
            "summary": finite(self.summary),
            "rounds": rounds,
            "refused": len(self.refusals),
            "refusals": [vars(refusal) for refusal in self.refusals[-MOST_REFUSALS:]],
            "judgement": self.judgement,
            "warnings": list(self.participants.warnings),
            "clients_seen": sum(account.asked > 0 for account in self.clients),
            "clients": [account.record() for account in self.heard_last(MOST_CLIENTS)],
        }


def _prefixed(work: RoundWork) -> dict[str, float]:
    return {f"training_{key}": value for key, value in vars(work).items()}


def run_state(now: Snapshot) -> str:
    """Whether a run goes on, how far it has come, and how long ago that was written.

    A round waits for replies for the run's `timeout_s`: who writes nothing for longer may be dead.
    """
    rounds = f"round {now.round} of {now.config.rounds}"
    if now.is_finished:
        return f"finished, {rounds}"
    silent_s = max(time.time() - now.written_s, 0)
    if silent_s > now.config.timeout_s:
        return f"silent for {_duration(silent_s)}, {rounds}"
    return f"running, {rounds}, written {_duration(silent_s)} ago"


def under_way(round_: UnderWay, participants: Participants) -> str:
    """The round that goes on, in a line, with who trains in it."""
    by = f"; deadline {round_.deadline_s:.3g} s" if math.isfinite(round_.deadline_s) else ""
    began = time.strftime("%H:%M:%S", time.localtime(round_.began_s))
    who = participants.named(round_.clients, _NAMED) if round_.clients else "nobody"
    return f"round {round_.round} began at {began}: {who}{by}"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
