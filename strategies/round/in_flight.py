"""When a round closes, and what becomes of updates that come later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from powerctl.errors import InvalidInput, UnknownName
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.round_policy import STALENESS_RULES

DROP = "drop"
LATE_RULES = (DROP, *STALENESS_RULES)
Update = TypeVar("Update")


@dataclass(frozen=True)
class Closing:
    """How many are asked, and with how many updates a round closes.

    Attributes
    ----------
    over_commit : float
        Clients asked for each one wanted; the round closes with the first to finish (Bonawitz et
        al., MLSys 2019).
    buffer : int
        0 for rounds. Else asynchronous aggregation: as many clients train at a time as are wanted
        in a round, and whenever so many updates have come, from whichever model they started, they
        are aggregated and their senders are replaced (FedBuff, Nguyen et al., AISTATS 2022, which
        replaces each at once).
    late : str
        What becomes of an update that comes when its round has closed: ``"drop"``, or the rule of
        `wattfed.strategies.round_policy` by which it counts in the round in which it comes.
    max_staleness : int
        Updates that are more rounds late are dropped all the same.
    """

    over_commit: float = 1.0
    buffer: int = 0
    late: str = DROP
    max_staleness: int = 5

    def __post_init__(self) -> None:
        if not self.over_commit >= 1:
            raise InvalidInput(f"over-commit must be at least 1, got {self.over_commit:g}")
        for name in ("buffer", "max_staleness"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name.replace('_', '-')} cannot be negative")
        if self.late not in LATE_RULES:
            raise UnknownName("rule for late updates", self.late, LATE_RULES)
        if self.buffer and (self.late == DROP or self.over_commit > 1):
            raise InvalidInput(
                "a buffer counts late updates and asks nobody beyond who is wanted: set late to "
                f"one of {', '.join(STALENESS_RULES)}, and over-commit to 1"
            )

    def to_ask(self, wanted: int, on_the_way: int) -> int:
        """How many to ask for a round in which so many are wanted and so many still train."""
        if self.buffer:
            return max(0, wanted - on_the_way)
        return math.ceil(self.over_commit * wanted)

    def to_await(self, asked: int) -> int:
        """How many of those asked a round waits for; of no concern with a buffer."""
        return max(min(asked, 1), round(asked / self.over_commit))


@dataclass
class Flight(Generic[Update]):
    """A client that trains, and what will come of it.

    `left_s` counts from the start of the present round until the update is here; `update` is None
    where it will not count.
    """

    report: RoundReport
    update: Update | None
    started: int
    left_s: float


@dataclass
class ClosedRound(Generic[Update]):
    """A round that has closed.

    Attributes
    ----------
    duration_s : float
        From its start to its end.
    arrived : list of Flight
        Whose updates count, by client; the reports say how late they are.
    dropped : list of RoundReport
        Of those whose updates came too late to count.
    waits : list of (float, float)
        Idle power (W) of each client that has finished, and how long it waited for the end (s).
    """

    duration_s: float
    arrived: list[Flight[Update]]
    dropped: list[RoundReport]
    waits: list[tuple[float, float]]


class Flights(Generic[Update]):
    """All clients that train, from round to round.

    Parameters
    ----------
    closing : Closing
        When rounds close, and what is late.

    Attributes
    ----------
    under_way : list of Flight
        Of those who still train.
    """

    def __init__(self, closing: Closing) -> None:
        self.closing = closing
        self.under_way: list[Flight[Update]] = []

    @property
    def clients(self) -> list[int]:
        """Who still trains."""
        return [flight.report.client for flight in self.under_way]

    def start(self, server_round: int, report: RoundReport, update: Update | None) -> None:
        """A client has started in this round; it takes as long as its report says."""
        took_s = report.time_s + report.transfer_s
        self.under_way.append(Flight(report, update, server_round, took_s))

    def close(self, server_round: int, asked: int, silence_s: float) -> ClosedRound[Update]:
        """End a round.

        Parameters
        ----------
        server_round : int
            The round.
        asked : int
            Clients that were asked to train in it.
        silence_s : float
            How long it waits for those who do not answer, if others do not suffice.
        """
        duration_s = self._duration_s(server_round, asked, silence_s)
        here = [flight for flight in self.under_way if flight.left_s <= duration_s]
        there = [flight for flight in self.under_way if flight.left_s > duration_s]
        dropped = []
        for flight in there:
            flight.left_s -= duration_s
            if self.closing.late == DROP and flight.update is not None:
                dropped.append(self._drop(flight))
        arrived = []
        for flight in here:
            late = server_round - flight.started
            flight.report = replace(flight.report, staleness=late) if late else flight.report
            if late > self.closing.max_staleness and flight.update is not None:
                dropped.append(self._drop(flight))
            if flight.report.used:
                arrived.append(flight)
        self.under_way = there
        return ClosedRound(
            duration_s,
            sorted(arrived, key=lambda flight: flight.report.client),
            dropped,
            [(flight.report.idle_power_w, duration_s - flight.left_s) for flight in here],
        )

    def _duration_s(self, server_round: int, asked: int, silence_s: float) -> float:
        buffer, wanted = self.closing.buffer, self.closing.to_await(asked)
        if buffer:
            arrivals_s = sorted(flight.left_s for flight in self.under_way)
            return arrivals_s[:buffer][-1] if arrivals_s else silence_s
        fresh_s = sorted(f.left_s for f in self.under_way if f.started == server_round)
        if len(fresh_s) < wanted:
            return max([*fresh_s, silence_s])
        return fresh_s[wanted - 1] if wanted else 0.0

    @staticmethod
    def _drop(flight: Flight[Update]) -> RoundReport:
        flight.report, flight.update = replace(flight.report, used=False), None
        return flight.report


def silence_s(assignments: Sequence[RoundAssignment], reports: Sequence[RoundReport]) -> float:
    """How long a round waits for who does not answer.

    Until its deadline; if it has none, until the last of those that were lost was gone, as their
    broken connections tell.
    """
    lost = [report for report in reports if report.lost]
    if len(reports) - len(lost) == len(assignments):
        return 0.0
    deadline_s = max((a.deadline_s for a in assignments), default=math.inf)
    if math.isfinite(deadline_s):
        return deadline_s
    return max((report.time_s + report.transfer_s for report in lost), default=0.0)


def close_with_all(
    server_round: int, assignments: Sequence[RoundAssignment], reports: Sequence[RoundReport]
) -> ClosedRound[None]:
    """A round that waits for all that were asked."""
    flights: Flights[None] = Flights(Closing())
    for report in reports:
        if report.minibatches and not report.lost:
            flights.start(server_round, report, None)
    asked = max(len(assignments), len(reports))
    return flights.close(server_round, asked, silence_s(assignments, reports))
