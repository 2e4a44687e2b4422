"""REFL: first those who will soon be gone, and fewer while late updates are on their way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory


@dataclass
class REFL(Memory):
    """Least available first, adaptive target (Abdelmoniem et al., REFL, EuroSys 2023).

    With mu the moving average of the rounds' durations, whoever is expected to be there now, but no
    longer in the window [mu, 2 mu], has priority; chance fills the rest. K shrinks by the late
    updates that are expected to arrive in this round, down to a share of it. An update is expected
    late if its client has not reported, from when it was predicted to finish; a client that is
    overdue by then is given up, so that one that died does not shrink the rounds for ever. How much
    late updates count is said by `wattfed.strategies.round_policy`.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    alpha : float
        Weight of the newest round in mu <- (1 - alpha) D + alpha mu (as in the paper, a small
        alpha follows the newest round).
    avail_probability : float
        Accuracy of the predicted availability; the paper simulates 0.9 on known traces. Set 1 where
        the clients' forecasts are real ones.
    cap : float
        K never shrinks below this share.
    """

    remembers = ("_mu_s", "_away", "_left_s")
    power: str = "slack"
    alpha: float = 0.25
    avail_probability: float = 0.9
    cap: float = 0.5
    _mu_s: float = field(default=math.nan, init=False, repr=False)
    _away: IntArray = field(default_factory=lambda: np.arange(0), init=False, repr=False)
    _left_s: FloatArray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients, the least available first."""
        rows = rng.permutation(offers.candidates(self.power))
        if not len(rows):
            return []
        round_s = offers.fastest_round_s(self.power)[rows]
        mu_s = float(np.median(round_s)) if math.isnan(self._mu_s) else self._mu_s
        leaves_s = offers.available_s[rows]
        leaves = (mu_s <= leaves_s) & (leaves_s < 2 * mu_s)
        leaves ^= rng.random(len(rows)) >= self.avail_probability
        arriving = int((self._left_s <= mu_s).sum())
        wanted = max(math.ceil(self.cap * k), k - arriving)
        first, rest = np.flatnonzero(leaves), np.flatnonzero(~leaves)
        chosen = np.concatenate([first[:wanted], rest[: max(0, wanted - len(first))]])
        self._expect(offers.client[rows[chosen]], round_s[chosen])
        return assign(offers, rows[chosen], self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Learn how long rounds take, and who is still on the way."""
        fresh = [report for report in reports if report.minibatches and not report.staleness]
        if fresh:
            took_s = max(report.round_s for report in fresh)
            before_s = took_s if math.isnan(self._mu_s) else self._mu_s
            self._mu_s = (1 - self.alpha) * took_s + self.alpha * before_s
        elif not math.isnan(self._mu_s):
            took_s = self._mu_s
        else:
            took_s = math.inf
        heard = np.array([report.client for report in reports], dtype=np.int64)
        self._left_s = self._left_s - took_s
        waiting = ~np.isin(self._away, heard) & (self._left_s > 0)
        self._away, self._left_s = self._away[waiting], self._left_s[waiting]

    def _expect(self, clients: IntArray, round_s: FloatArray) -> None:
        """Clients sent to train, and how long they are predicted to take."""
        others = ~np.isin(self._away, clients)
        self._away = np.concatenate([self._away[others], clients])
        self._left_s = np.concatenate([self._left_s[others], round_s])
