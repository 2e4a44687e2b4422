"""A run as it was at one moment, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from powerctl.fields import Count
from wattfed.server.live.accounts import ClientAccount, RoundWork
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import RoundRow, finite, summary
from wattfed.server.run.judging import judge
from wattfed.server.run.participants import Participants
from wattfed.strategies.protocol import ClientNumber, Clock, MostSeconds
from wattfed.strategies.round.ledger import Ledger, RefusedReply
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

MOST_CLIENTS, MOST_REFUSALS = 1000, 100  # in one record


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
        """Rounds that are over."""
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
        return summary(self.config, self.rows, self.ledger) if self.rows else {}

    @property
    def n_clients(self) -> int:
        """Clients that the run waited for, and at least all that were seen."""
        seen = (account.client + 1 for account in self.clients[-1:])
        return max([self.participants.clients, self.config.min_nodes, *seen])

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
