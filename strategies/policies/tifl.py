"""TiFL: clients of one speed tier, tiers that learn badly more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import BoolArray, FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Experience
from wattfed.strategies.policies.speed_tiers import speed_tiers, tiers_that_fill
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory
from wattfed.strategies.target import Target

_TOLD = Target("loss", "min")  # the one metric that clients report


@dataclass
class TiFL(Memory):
    """Adaptive choice of a tier, then random clients in it (Chai et al., TiFL, HPDC 2020).

    Every `interval` rounds, if the tier in use has not become better since the last such round, the
    chances of the tiers are set anew, the worst the most. Slow tiers can be drawn only so often.

    Two substitutions: the offers predict durations, so that no profiling rounds are spent; and in
    place of its accuracy, a tier is judged by the mean of its clients' last losses, since the
    clients are not evaluated (a tier nobody of which has reported counts as worst). What others do
    and this does not: loop for ever when all tiers with a chance have used up their credits, divide
    by zero with one tier, fail on a tier smaller than k.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    tiers : int
        Tiers to make; fewer in a small fleet, so that each holds `k` clients.
    interval : int
        Rounds between looks at how good the tiers are.
    credits : int
        How often each tier but the fastest may be drawn; 0 shares the run's rounds equally, as in
        easyFL (the paper gives no number).
    rounds : int
        Rounds of the run; 0 sets no bound where `credits` is 0.
    best_keeps_chance : bool
        With n tiers, the i-th worst gets (n - i) / D with D = n (n - 1) / 2 and i from 1, so that
        the best gets nothing (the paper); True counts i from 0, with D = n (n + 1) / 2 (easyFL).
    slowest_s : float
        Clients whose round takes longer are dropped.
    """

    remembers = (
        "_known",
        "_chance",
        "_credits",
        "_value",
        "_current",
        "_round",
    )
    power: str = "slack"
    tiers: int = 5
    interval: int = 10
    credits: int = 0
    rounds: int = 0
    best_keeps_chance: bool = False
    slowest_s: float = np.inf
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _chance: FloatArray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _credits: FloatArray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _value: FloatArray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _current: int = field(default=0, init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients of the tier drawn."""
        self._round = server_round
        self._known.know(offers.client)
        rows = offers.candidates(self.power)
        round_s = offers.fastest_round_s(self.power)[rows]
        rows, round_s = rows[round_s <= self.slowest_s], round_s[round_s <= self.slowest_s]
        if not len(rows):
            return []
        if not len(self._chance):
            self._start(tiers_that_fill(len(rows), k, self.tiers))
        tier = speed_tiers(round_s, len(self._chance))
        if server_round >= self.interval and server_round % self.interval == 0:
            self._look(tier, offers.client[rows])
        occupied = np.bincount(tier, minlength=len(self._chance)) > 0
        self._current = self._draw(occupied, rng)
        members = rows[tier == self._current]
        chosen = rng.choice(members, size=min(k, len(members)), replace=False)
        return assign(offers, chosen, self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember the losses that the clients report."""
        self._known.record(reports, self._round)

    def _start(self, n: int) -> None:
        self._chance = np.full(n, 1 / n)
        self._value = np.full(n, np.nan)
        self._credits = np.full(n, float(self.credits or math.ceil(self.rounds / n) or np.inf))
        self._credits[0] = np.inf

    def _look(self, tier: IntArray, clients: IntArray) -> None:
        """Set the chances anew if the current tier has not improved since the last look."""
        value = self._values(tier, clients)
        if not _TOLD.is_better(value[self._current], self._value[self._current]):
            self._chance = tier_chances(value, self._credits > 0, self.best_keeps_chance, _TOLD)
        self._value = value

    def _values(self, tier: IntArray, clients: IntArray) -> FloatArray:
        """Of each tier, the mean of what its clients told last; NaN where none has."""
        loss = self._known.loss[clients]
        heard = np.isfinite(loss)
        n, count = len(self._chance), np.bincount(tier[heard], minlength=len(self._chance))
        total = np.bincount(tier[heard], weights=loss[heard], minlength=n)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def _draw(self, occupied: BoolArray, rng: Generator) -> int:
        """A tier by chance among those with clients and credits; without regard to it if none."""
        open_tiers = occupied & (self._credits > 0)
        if not open_tiers.any():
            open_tiers = occupied
        chance = np.where(open_tiers, self._chance, 0.0)
        if not chance.sum():
            chance = open_tiers.astype(float)
        drawn = int(rng.choice(len(chance), p=chance / chance.sum()))
        self._credits[drawn] -= 1
        return drawn


def tier_chances(
    value: FloatArray,
    has_credits: BoolArray,
    best_keeps_chance: bool = False,
    target: Target | None = None,
) -> FloatArray:
    """TiFL's ChangeProbs: chances of the tiers, the worse the higher; see `TiFL`.

    Parameters
    ----------
    value : FloatArray, shape (n,)
        Of each tier, in a metric; NaN is worst.
    has_credits : BoolArray, shape (n,)
        Tiers without credits get no chance.
    target : Target, optional
        The metric, which says what is worse; by default accuracy.

    Returns
    -------
    FloatArray, shape (n,)
        Sums to 1 if any tier has credits.
    """
    tiers = np.flatnonzero(has_credits)
    order = tiers[(target or Target()).worst_first(value[tiers])]
    weight = np.arange(len(order), 0, -1) - (0 if best_keeps_chance else 1)
    if len(order) == 1:
        weight = np.ones(1, dtype=np.int64)
    chances = np.zeros(len(value))
    chances[order] = weight / max(1, weight.sum())
    return chances
