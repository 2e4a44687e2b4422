"""pace: clients, their number, the deadline and everyone's pace, chosen together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from powerctl.rounds import RoundAssignment, RoundReport
from strategies.offers import Offers
from strategies.policy import assign, with_reserve


@dataclass
class Pace:
    """Participants and deadline of the most learning per joule and second.

    For a deadline T, client i's round costs e_i(T): the least energy on its front that finishes
    by T, plus waiting at idle power until T. With utilities u_i the policy maximises, over T and
    sets S of at most k clients,

        gamma log(sum u_i) - log(sum e_i(T) + rho T),

    so that nobody races to wait: whoever is not the slowest gets the time to run in a mode that
    costs less. For each T the best set of each size is taken greedily by utility per joule.
    Hard limits come before: only clients whose front has a point within T and within their energy
    allowance are considered.

    Utility is Oort's (Lai et al., OSDI 2021) in idea: examples times the last training loss, plus
    a bonus for what is uncertain, here the highest loss known times sqrt(curiosity ln R / (1 + c))
    in round R for a client that took part c times, all divided by (1 + c)^fairness. A client
    never heard of counts with the highest loss known.

    Parameters
    ----------
    gamma : float
        Weight of learning against cost; higher takes more clients.
    rho_w : float
        Price of a second, in watts.
    fairness : float
        How strongly past participation counts against a client.
    at_least : float
        Smallest share of k to select: aiming at too few ruins the last points of accuracy.
    curiosity : float
        Weight of the bonus for clients that are little known.
    n_deadlines : int
        Candidate deadlines to consider.
    """

    gamma: float = 1.0
    rho_w: float = 50.0
    fairness: float = 0.25
    at_least: float = 0.8
    curiosity: float = 0.1
    n_deadlines: int = 48
    _loss: FloatArray = field(default_factory=lambda: np.zeros(0), repr=False)
    _count: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments with one common deadline, each of the least energy that meets it."""
        self._grow(int(offers.client.max(initial=-1)) + 1)
        affordable = offers.energy_j <= offers.allowance_j[:, None]
        time_s = np.where(affordable, offers.time_s, np.inf)
        rows = np.flatnonzero(offers.able & np.isfinite(time_s).any(axis=1))
        if not len(rows):
            return assign(offers, offers.candidates("slack")[:k], "slack", np.inf)
        round_s = time_s[rows] + offers.transfer_s[rows, None]
        utility = self._utility(offers, rows, server_round, rng)
        best = (-np.inf, 0.0, rows[:0])
        for deadline_s in self._deadlines(round_s):
            cost_j = _cost_by(deadline_s, round_s, offers, rows)
            order, value = self._best_prefix(utility, cost_j, deadline_s, k)
            if value > best[0]:
                best = (value, float(deadline_s), rows[order])
        return assign(offers, best[2], "slack", with_reserve(best[1]))

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember each participant's loss, and how often it took part."""
        self._grow(max((report.client for report in reports), default=-1) + 1)
        for report in reports:
            if report.minibatches:
                self._loss[report.client] = report.loss
                self._count[report.client] += 1

    def _utility(
        self, offers: Offers, rows: IntArray, server_round: int, rng: Generator
    ) -> FloatArray:
        client = offers.client[rows]
        count = self._count[client]
        highest = float(self._loss.max(initial=0.0)) or 1.0
        loss = np.where(count > 0, self._loss[client], highest)
        bonus = highest * np.sqrt(self.curiosity * np.log(server_round) / (1 + count))
        utility = offers.examples[rows] * (loss + bonus) / (1.0 + count) ** self.fairness
        jitter = 1 + 1e-6 * rng.random(len(rows))  # equal clients take turns by chance
        return np.asarray(np.maximum(utility, 1e-9 * highest) * jitter)

    def _deadlines(self, round_s: FloatArray) -> FloatArray:
        """Candidate deadlines: the distinct round times of all fronts, thinned evenly."""
        times = np.unique(round_s[np.isfinite(round_s)])
        picks = np.linspace(0, len(times) - 1, min(self.n_deadlines, len(times)))
        return np.asarray(times[picks.round().astype(int)])

    def _best_prefix(
        self, utility: FloatArray, cost_j: FloatArray, deadline_s: float, k: int
    ) -> tuple[IntArray, float]:
        """The best number of clients in greedy order, and its value; -inf if too few can."""
        able = np.flatnonzero(np.isfinite(cost_j))
        order = able[np.argsort(-utility[able] / cost_j[able], kind="stable")][:k]
        if not len(order):
            return order, -np.inf
        gain = self.gamma * np.log(np.cumsum(utility[order]))
        value = gain - np.log(np.cumsum(cost_j[order]) + self.rho_w * deadline_s)
        wanted = max(1, math.ceil(self.at_least * k))
        fewest = min(wanted, len(order))
        size = fewest + int(value[fewest - 1 :].argmax())
        return order[:size], float(value[size - 1]) - 1e6 * max(0, wanted - size)

    def _grow(self, n: int) -> None:
        extra = n - len(self._count)
        if extra > 0:
            self._loss = np.pad(self._loss, (0, extra))
            self._count = np.pad(self._count, (0, extra))


def _cost_by(deadline_s: float, round_s: FloatArray, offers: Offers, rows: IntArray) -> FloatArray:
    """Least energy of each client to finish by a deadline and wait until then; inf if it cannot."""
    in_time = round_s <= deadline_s
    wait_s = deadline_s + offers.transfer_s[rows, None] - np.where(in_time, round_s, 0.0)
    total_j = offers.energy_j[rows] + offers.idle_power_w[rows, None] * wait_s
    return np.asarray(np.where(in_time, total_j, np.inf).min(axis=1))
