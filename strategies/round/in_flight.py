"""Clients that train and their updates, from round to round, and how late updates join a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wattfed.strategies.protocol import WEIGHT, RoundAssignment, RoundReport
from wattfed.strategies.round.numpy_reply import Numbers, NumpyReply
from wattfed.strategies.round.updates import ClientUpdate, GlobalModel, Reply
from wattfed.strategies.round_policy import DROP, RoundPolicy, staleness_weights
from wattfed.strategies.state import State


@dataclass
class InFlightUpdate:
    """A client that trains, and what will come of it.

    `left_s` counts from the start of the present round until the update is here; `update` is None
    where it will not count, or is in the sum of its block (`is_summed`).
    """

    report: RoundReport
    update: ClientUpdate | None
    started: int
    left_s: float
    is_summed: bool = False

    @property
    def counts(self) -> bool:
        """Whether the model is to be made of it as well."""
        return self.is_summed or self.update is not None


@dataclass
class ClosedRound:
    """A round that has closed.

    Attributes
    ----------
    duration_s : float
        From its start to its end.
    arrived : list of InFlightUpdate
        Whose updates count, by client; the reports say how late they are.
    dropped : list of RoundReport
        Of those whose updates came too late to count.
    waits : list of (RoundReport, float)
        Of each client that has finished, and how long it waited for the end (s).
    """

    duration_s: float
    arrived: list[InFlightUpdate]
    dropped: list[RoundReport]
    waits: list[tuple[RoundReport, float]]


class InFlightUpdates:
    """All clients that train, from round to round.

    Parameters
    ----------
    policy : RoundPolicy
        When rounds close, and what is late.

    Attributes
    ----------
    under_way : list of InFlightUpdate
        Of those who still train.
    """

    def __init__(self, policy: RoundPolicy) -> None:
        self.policy = policy
        self.under_way: list[InFlightUpdate] = []

    @property
    def clients(self) -> list[int]:
        """Numbers of the clients that still train."""
        return [flight.report.client for flight in self.under_way]

    def start(
        self,
        server_round: int,
        report: RoundReport,
        update: ClientUpdate | None,
        is_summed: bool = False,
    ) -> None:
        """A client has started in this round; it takes as long as its report says."""
        flight = InFlightUpdate(report, update, server_round, report.round_s, is_summed)
        self.under_way.append(flight)

    def close(self, server_round: int, asked: int, silence_s: float) -> ClosedRound:
        """End a round: who has come, who is dropped, and how long it took.

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
            if self.policy.late == DROP and flight.update is not None:
                dropped.append(self._drop(flight))
        arrived = []
        for flight in here:
            late = server_round - flight.started
            flight.report = replace(flight.report, staleness=late) if late else flight.report
            if late > self.policy.max_staleness and flight.update is not None:
                dropped.append(self._drop(flight))
            if flight.report.used:
                arrived.append(flight)
        self.under_way = there
        return ClosedRound(
            duration_s,
            sorted(arrived, key=lambda flight: flight.report.client),
            dropped,
            [(flight.report, duration_s - flight.left_s) for flight in here],
        )

    def _duration_s(self, server_round: int, asked: int, silence_s: float) -> float:
        buffer, wanted = self.policy.buffer, self.policy.to_await(asked)
        if buffer:
            arrivals_s = sorted(flight.left_s for flight in self.under_way)
            return arrivals_s[:buffer][-1] if arrivals_s else silence_s
        fresh_s = sorted(f.left_s for f in self.under_way if f.started == server_round)
        if len(fresh_s) < wanted:
            return max([*fresh_s, silence_s])
        return fresh_s[wanted - 1] if wanted else 0.0

    @staticmethod
    def _drop(flight: InFlightUpdate) -> RoundReport:
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
    return max((report.round_s for report in lost), default=0.0)


def replies_to_aggregate(
    arrived: Sequence[InFlightUpdate], base: GlobalModel, late_rule: str
) -> list[Reply]:
    """The replies of updates that have come, as an aggregation takes them.

    Where all are of this round, they are the replies. A late one brings its change to the present
    model, and its examples count by the rule for late updates.

    Parameters
    ----------
    arrived : sequence of InFlightUpdate
        Those without an update are left out.
    base : GlobalModel
        The present global model.
    late_rule : str
        Of `wattfed.strategies.round_policy`.
    """
    updates = [(flight.update, flight.report) for flight in arrived if flight.update is not None]
    staleness = np.array([report.staleness for _, report in updates], dtype=np.int64)
    if not staleness.any():
        return [update.reply for update, _ in updates]
    changes = [update.change() for update, _ in updates]
    deviation = _deviations(changes, base.parameter_names, staleness)
    weights = staleness_weights(staleness, deviation, late_rule)
    return [
        _moved(update, change, base, float(weight)) if late else update.reply
        for (update, _), change, late, weight in zip(
            updates, changes, staleness > 0, weights / weights.max(), strict=True
        )
    ]


def state_of_in_flight(flights: Sequence[InFlightUpdate]) -> State:
    """Updates in flight as plain values, with the models from which they started, once each."""
    return {
        "bases": {str(f.started): f.update.base.arrays for f in flights if f.update is not None},
        "flights": [
            {
                "report": dict(vars(flight.report)),
                "started": flight.started,
                "left_s": flight.left_s,
                "arrays": None if flight.update is None else flight.update.numbers,
                "metrics": None if flight.update is None else flight.update.metrics,
            }
            for flight in flights
        ],
    }


def in_flight_of(state: State, parameters: frozenset[str] | None) -> list[InFlightUpdate]:
    """The updates in flight of such a state, of a model with these parameters."""
    kept = state["bases"].items()
    bases = {started: GlobalModel.of(arrays, parameters) for started, arrays in kept}
    flights = []
    for one in state["flights"]:
        update = None
        if one["arrays"] is not None:
            reply = NumpyReply(one["arrays"], one["metrics"])
            update = ClientUpdate(reply, bases[str(one["started"])])
        report = RoundReport(**one["report"])
        flights.append(InFlightUpdate(report, update, one["started"], one["left_s"]))
    return flights


def _deviations(
    changes: Sequence[Numbers], parameters: Sequence[str], staleness: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far each late change, joining the n fresh ones, would move their average, squared."""
    if not parameters:
        return np.zeros(len(changes))
    flat = np.array([np.concatenate([c[name].ravel() for name in parameters]) for c in changes])
    fresh = flat[staleness == 0]
    centre = fresh.mean(axis=0) if len(fresh) else np.zeros(flat.shape[1])
    return np.asarray((((flat - centre) / (len(fresh) + 1)) ** 2).sum(axis=1), dtype=np.float64)


def _moved(update: ClientUpdate, change: Numbers, base: GlobalModel, weight: float) -> NumpyReply:
    """A reply with its change brought to another model, and its examples weighed."""
    moved = {
        name: began ^ delta if delta.dtype == np.bool_ else began + delta
        for name, delta in change.items()
        for began in [base.widened(name)]
    }
    metrics = update.metrics
    return NumpyReply({**update.numbers, **moved}, {**metrics, WEIGHT: metrics[WEIGHT] * weight})
