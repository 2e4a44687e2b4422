"""The ledger: what each round took of time and energy, on the fleet's own clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from powerctl.fields import Count
from wattfed.strategies.accounting import ALWAYS_ON, TRAINING
from wattfed.strategies.protocol import (
    ClientNumber,
    Clock,
    EvaluationReport,
    Loss,
    MostSeconds,
    NodeNumber,
    Percent,
    RoundAssignment,
    RoundReport,
)
from wattfed.strategies.round.in_flight import ClosedRound


@dataclass(frozen=True)
class RoundEntry:
    """One round of a federation.

    Times are seconds and energies joules of the devices' clocks and modules, not of the host.
    `round_time_s` lasts until the last upload that the round waits for (or the deadline, if a
    client stayed away); `train_energy_j` is the training of those who started in it,
    `transfer_energy_j` their transfer, at idle power and that of the network interface,
    `overhead_energy_j` what else comes beside their training, at idle power, and `wait_energy_j`
    the waiting, at idle power, of those who finished in it until its end; `supply_energy_j` is what
    carrier boards and supplies of all these took meanwhile. Those who were not selected are not
    counted. `wasted_energy_j` is the part of it all, in this round or before, whose updates were
    lost, rejected, or dropped as too late; `inference_energy_j` is what requests took that the
    participants served while they trained, which is in none of the others. `stale` counts updates
    from earlier rounds that were used, `dropped` those that came too late; `guarded` the clients
    whose power guard stepped down, `latency_violations` those whose inference meanwhile took longer
    than its budget. `others_energy_j` is what boards that offered, but do not take part, took idle
    at their supplies while it lasted; it is in none of the others. `went_back` is 1 where it began
    with an earlier model, because the run had diverged.
    """

    round: Count
    clients: tuple[ClientNumber, ...]
    reported: Count
    declined: Count
    failed: Count
    rejected: Count
    partial: Count
    deadline_s: MostSeconds
    round_time_s: Clock
    train_energy_j: Clock
    wait_energy_j: Clock
    power_violations: Count
    budget_violations: Count
    late: Count
    train_loss: Loss
    time_error_pct: Percent
    energy_error_pct: Percent
    guarded: Count = 0
    latency_violations: Count = 0
    transfer_energy_j: Clock = 0.0
    wasted_energy_j: Clock = 0.0
    stale: Count = 0
    dropped: Count = 0
    inference_energy_j: Clock = 0.0
    overhead_energy_j: Clock = 0.0
    supply_energy_j: Clock = 0.0
    others_energy_j: Clock = 0.0
    went_back: Count = 0

    def accounted_j(self, accounting: str) -> float:
        """The energy of the round in one of the accountings of `wattfed.strategies.accounting`."""
        if accounting == TRAINING:
            return self.train_energy_j + self.transfer_energy_j
        return self.energy_j + (self.others_energy_j if accounting == ALWAYS_ON else 0.0)

    @property
    def energy_j(self) -> float:
        """Energy of training, transfer, waiting and all that comes beside them in the round."""
        working_j = self.train_energy_j + self.transfer_energy_j + self.wait_energy_j
        return working_j + self.overhead_energy_j + self.supply_energy_j

    @property
    def budget_misses(self) -> int:
        """Clients that broke a limit: their power limit or their energy allowance."""
        return self.power_violations + self.budget_violations


@dataclass(frozen=True)
class RefusedReply:
    """A reply that does not count: in which round, from which node and client, and why.

    There is no node in a simulation, and no client where a reply does not tell one. `name` is what
    the node is called, as far as that is known.
    """

    round: int
    node: NodeNumber | None
    client: int | None
    reason: str
    name: str = ""

    def __str__(self) -> str:
        who = [] if self.node is None else [node_words(self.node, self.name)]
        who += [] if self.client is None else [f"client {self.client}"]
        return f"{', '.join(who)}: {self.reason}"


def node_words(node: int, name: str = "") -> str:
    """A node as messages call it: by its name, if it has one, and its number."""
    return f"{name} (node {node})" if name else f"node {node}"


@dataclass
class Ledger:
    """All rounds of a run, every report in them and every reply that was refused, by round.

    `evaluation_s` and `evaluation_j` are what evaluations on clients have taken after the rounds.
    """

    entries: list[RoundEntry] = field(default_factory=list)
    reports: list[tuple[int, RoundReport]] = field(default_factory=list)
    refusals: list[RefusedReply] = field(default_factory=list)
    evaluation_s: float = 0
    evaluation_j: float = 0

    @property
    def clock_s(self) -> float:
        """The fleet's virtual time: the sum of the rounds, and of evaluations on clients."""
        return sum(entry.round_time_s for entry in self.entries) + self.evaluation_s

    @property
    def energy_j(self) -> float:
        """The fleet's energy in all rounds, and in evaluations on clients."""
        return sum(entry.energy_j for entry in self.entries) + self.evaluation_j

    def reports_of(self, server_round: int) -> list[RoundReport]:
        """The clients' reports of one round."""
        first = bisect_left(self.reports, server_round, key=lambda pair: pair[0])
        last = bisect_right(self.reports, server_round, first, key=lambda pair: pair[0])
        return [report for _, report in self.reports[first:last]]

    def refusals_of(self, server_round: int) -> list[RefusedReply]:
        """The replies of one round that were refused."""
        return [refusal for refusal in self.refusals if refusal.round == server_round]

    def record(
        self,
        server_round: int,
        assignments: Sequence[RoundAssignment],
        reports: Sequence[RoundReport],
        rejected: Sequence[RoundReport],
        closed: ClosedRound,
        others_w: float = 0.0,
    ) -> RoundEntry:
        """Enter a round from its assignments, reports and end.

        Parameters
        ----------
        server_round : int
            Its number.
        assignments : sequence of RoundAssignment
            What was assigned in it.
        reports : sequence of RoundReport
            What came of that, whenever it is to arrive.
        rejected : sequence of RoundReport
            Those of them whose updates are of no use.
        closed : ClosedRound
            How it ended.
        others_w : float
            What the boards of the fleet that are not in it take idle, at their supplies.
        """
        deadline_s = max((a.deadline_s for a in assignments), default=float("inf"))
        trained = [report for report in reports if report.minibatches]
        here = [flight.report for flight in closed.arrived]
        lost = [report for report in reports if report.lost]
        told = [*here, *closed.dropped, *(r for r in reports if r.lost or not r.minibatches)]
        told.sort(key=lambda report: report.client)
        self.reports.extend((server_round, report) for report in told)
        entry = RoundEntry(
            round=server_round,
            clients=tuple(a.client for a in assignments),
            reported=_count(not report.lost for report in trained),
            declined=_count(bool(report.decline) for report in reports),
            failed=len(assignments) - len(reports) + len(lost),
            rejected=len(rejected),
            partial=_count(report.minibatches < report.wanted_minibatches for report in trained),
            deadline_s=deadline_s,
            round_time_s=closed.duration_s,
            train_energy_j=sum((report.energy_j for report in trained), 0.0),
            wait_energy_j=sum((r.idle_power_w * s for r, s in closed.waits), 0.0),
            power_violations=_count(report.broke_power_limit for report in trained),
            budget_violations=_count(report.broke_budget for report in trained),
            late=_count(r.round_s > deadline_s for r in trained if not r.lost),
            train_loss=_mean([report.loss for report in trained]),
            time_error_pct=_mean([_error_pct(r.expected_time_s, r.time_s) for r in trained]),
            energy_error_pct=_mean([_error_pct(r.expected_energy_j, r.energy_j) for r in trained]),
            guarded=_count(report.guard_steps > 0 for report in trained),
            latency_violations=_count(report.broke_latency for report in trained),
            transfer_energy_j=sum(map(_transfer_j, trained), 0.0),
            wasted_energy_j=_spent_j([*closed.dropped, *rejected, *lost]),
            stale=_count(report.staleness > 0 for report in here),
            dropped=len(closed.dropped),
            inference_energy_j=sum((report.inference_energy_j for report in trained), 0.0),
            overhead_energy_j=sum((r.idle_power_w * r.overhead_s for r in trained), 0.0),
            supply_energy_j=sum(map(_supply_j, trained), 0.0)
            + sum((_beside_j(r, r.idle_power_w * s, s) for r, s in closed.waits), 0.0),
            others_energy_j=others_w * closed.duration_s,
        )
        self.entries.append(entry)
        return entry

    def evaluated(self, reports: Sequence[EvaluationReport]) -> None:
        """Enter an evaluation on clients: it takes as long as the last of them."""
        if reports:
            self.evaluation_s += max(r.transfer_s + r.time_s + r.overhead_s for r in reports)
            self.evaluation_j += sum(r.energy_j for r in reports)

    def went_back(self) -> RoundEntry:
        """Enter that the last round began with an earlier model."""
        self.entries[-1] = replace(self.entries[-1], went_back=1)
        return self.entries[-1]

    def waste(self, reports: Sequence[RoundReport]) -> RoundEntry:
        """Enter that some updates of the last round were of no use after all."""
        last = self.entries[-1]
        wasted_energy_j = last.wasted_energy_j + _spent_j(reports)
        self.entries[-1] = replace(last, wasted_energy_j=wasted_energy_j)
        return self.entries[-1]


def _spent_j(reports: Sequence[RoundReport]) -> float:
    return sum((_working_j(report) + _supply_j(report) for report in reports), 0.0)


def _working_j(report: RoundReport) -> float:
    """Joules of a client's part in a round, without what carrier board and supply took."""
    return report.energy_j + _transfer_j(report) + report.idle_power_w * report.overhead_s


def _transfer_j(report: RoundReport) -> float:
    return report.idle_power_w * report.transfer_s + report.radio_j


def _supply_j(report: RoundReport) -> float:
    return _beside_j(report, _working_j(report), report.round_s)


def _beside_j(report: RoundReport, working_j: float, seconds: float) -> float:
    """Joules of carrier board and supply, while the module and its interface took some."""
    return (working_j + report.carrier_w * seconds) / report.supply_efficiency - working_j


def _error_pct(expected: float, measured: float) -> float:
    """Absolute error of a plan in percent."""
    return 100 * abs(expected - measured) / measured


def _count(conditions: Iterable[bool]) -> int:
    return sum(map(int, conditions))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
