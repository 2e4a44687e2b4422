"""The selection-policy protocol, and how power is set for policies that only select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.random import Generator

from powerctl.fulcrum.plans import TIME_RESERVE
from powerctl.modes import IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.summaries import UpdateSummary


class SelectionPolicy(Protocol):
    """Chooses who trains in a round, by when, and with how much work.

    The same object serves the deployment and every simulation. Its randomness is handed in, its
    state is arrays that it owns.

    A policy that learns has `state` and `restore` as well (`wattfed.strategies.state.Memory` gives
    them to who lists what it remembers), so that a run can go on from a checkpoint. One that keeps
    nothing from round to round is a frozen dataclass. A run with any other policy can be begun, but
    not resumed.
    """

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of at most `k` clients, each among the offers."""
        ...

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Learn from what the round really took."""
        ...


class ObservesUpdates(Protocol):
    """A policy that learns from the updates themselves as well: from a summary of each.

    It says so by `observes_updates`, and its `observe` takes them: by client, of those whose
    updates counted in the round, at the length to which the aggregation clips them. Where no policy
    asks, none is made.
    """

    observes_updates: Literal[True]

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments, as of any other policy."""
        ...

    def observe(
        self, reports: Sequence[RoundReport], summaries: Mapping[int, UpdateSummary]
    ) -> None:
        """Learn from what the round really took, and from how its updates changed the model."""
        ...


def observes_updates(policy: Any) -> bool:
    """Whether a policy wants to be told of the updates."""
    return bool(getattr(policy, "observes_updates", False))


def with_reserve(finish_s: float) -> float:
    """The deadline for clients that are to finish at a time: they keep a reserve before it."""
    return finish_s / (1 - TIME_RESERVE)


def assign(offers: Offers, rows: IntArray, power: str, deadline_s: float) -> list[RoundAssignment]:
    """Assignments of the full local work to some rows of the offers, under a power policy.

    With ``"slack"`` and no deadline of the policy's own (infinite), everyone has the time that the
    slowest of the selected needs at its fastest: slowing down to it costs the round nothing.
    """
    if power == "slack" and np.isinf(deadline_s) and len(rows):
        deadline_s = with_reserve(float(offers.fastest_round_s(power)[rows].max()))
    return [
        RoundAssignment(
            client=int(offers.client[row]),
            minibatches=int(offers.minibatches[row]),
            deadline_s=deadline_s,
            power=power,
        )
        for row in sorted(rows.tolist())
    ]
