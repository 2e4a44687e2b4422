"""Offers for the tests of policies: clients whose costs are easy to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from powerctl.boards import load_board
from powerctl.fulcrum.plans import FixedMode, Front
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RoundAssignment, RoundOffer, RoundReport
from wattfed.strategies.round.in_flight import InFlightUpdates, silence_s
from wattfed.strategies.round.ledger import Ledger, RoundEntry
from wattfed.strategies.round_policy import RoundPolicy

_SPACE = load_board("orin-nano").space
_MODES = tuple(_SPACE.mode(i) for i in range(2))


def offer(
    client: int,
    *,
    fast_s: float = 1.0,
    fast_j: float = 20.0,
    minibatches: int = 10,
    allowance_j: float = 1e6,
    decline: str = "",
    **changes: object,
) -> RoundOffer:
    """A client with two choices a minibatch: fast, and twice as slow for 0.7 of the energy."""
    front = Front(_MODES, np.array([fast_s, 2 * fast_s]), np.array([fast_j, 0.7 * fast_j]))
    values = {
        "client": client,
        "n_clients": 1000,
        "examples": 16 * minibatches,
        "minibatches": minibatches,
        "loss": float("nan"),
        "front": Front((), np.zeros(0), np.zeros(0)) if decline else front,
        "maxn": FixedMode(_SPACE.maximum, 0.8 * fast_s, 1.5 * fast_j),
        "preset": FixedMode(_SPACE.mode(2), 1.2 * fast_s, 1.1 * fast_j),
        "idle_power_w": 2.0,
        "transfer_s": 0.5,
        "allowance_j": allowance_j,
        "decline": decline,
    }
    return RoundOffer(**{**values, **changes})


def report(client: int, **changes: object) -> RoundReport:
    """A report of ten minibatches as planned."""
    values = {
        "client": client,
        "examples": 160,
        "minibatches": 10,
        "time_s": 10.0,
        "energy_j": 200.0,
        "peak_power_w": 20.0,
        "transfer_s": 0.5,
        "idle_power_w": 2.0,
        "loss": 1.0,
        "power_limit_w": 25.0,
        "allowance_j": 500.0,
        "deadline_s": 20.0,
        "wanted_minibatches": 10,
        "planned_minibatches": 10,
        "planned_time_s": 10.0,
        "planned_energy_j": 200.0,
    }
    return RoundReport(**{**values, **changes})


def rng(seed: int = 0) -> np.random.Generator:
    """The randomness of a round."""
    return np.random.default_rng(seed)


def clients(assignments: list[RoundAssignment]) -> list[int]:
    """Who is selected, in order."""
    return [assignment.client for assignment in assignments]


def recorded(
    ledger: Ledger,
    server_round: int,
    assignments: Sequence[RoundAssignment],
    reports: Sequence[RoundReport],
    rejected: Sequence[RoundReport] = (),
    others_w: float = 0.0,
) -> RoundEntry:
    """The entry of a round that waits for all that were asked."""
    in_flight = InFlightUpdates(RoundPolicy())
    for one in reports:
        if one.minibatches and not one.lost:
            in_flight.start(server_round, one, None)
    asked = max(len(assignments), len(reports))
    closed = in_flight.close(server_round, asked, silence_s(assignments, reports))
    return ledger.record(server_round, assignments, reports, rejected, closed, others_w)


def mixed_offers() -> Offers:
    """Twelve clients of rising slowness; the last two cannot take part."""
    able = [offer(i, fast_s=1 + i / 4) for i in range(10)]
    return Offers.of([*able, offer(10, decline="empty"), offer(11, decline="hot")])
