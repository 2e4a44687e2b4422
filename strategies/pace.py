"""pace: clients, their number, the deadline and everyone's pace, chosen together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from powerctl.rounds import RoundAssignment, RoundReport
from strategies.delivery import Delivery
from strategies.experience import Experience
from strategies.offers import Offers
from strategies.policy import assign, with_reserve
from strategies.round_cost import candidate_deadlines, least_cost_by
from strategies.sampling import smallest
from strategies.speed_tiers import tier_members

_TIERS = 10  # of speed, in the short list


@dataclass
class Pace:
    """Participants and deadline of the most learning per joule and second.

    For a deadline T, client i's round costs e_i(T): the least energy on its front that finishes
    by T, plus waiting at idle power until T. With utilities u_i the policy maximises, over T and
    sets S of at most k clients,

        gamma log(sum u_i) - log(sum e_i(T) + rho T),

    so that nobody races to wait: whoever is not the slowest gets the time to run in a mode that
    costs less. For each T the best set of each size is taken greedily by utility per joule.
    Hard limits come before: only clients whose front has a point within T, and within their energy
    allowance and battery, and that do not expect to leave before T, are considered.

    Utility is Oort's (Lai et al., OSDI 2021) in idea: examples times the last training loss, plus
    a bonus for what is uncertain, here the highest loss known times sqrt(curiosity ln R / (1 + c))
    in round R for a client that took part c times, all divided by (1 + c)^fairness. A client
    never heard of counts with the highest loss known. A client that, when asked, delivers only in
    a share of the rounds (it is silent, declines, or is too late) has that share of its utility.

    In a large pool the search runs over a short list: of each tenth by speed, the clients of most
    utility per joule, so that whatever the deadline, the best of the faster tenths are among them.

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
    shortlist : int
        Clients to search over, but at least k of each tenth.
    """

    gamma: float = 1.0
    rho_w: float = 50.0
    fairness: float = 0.25
    at_least: float = 0.8
    curiosity: float = 0.1
    n_deadlines: int = 48
    shortlist: int = 1000
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _delivery: Delivery = field(default_factory=Delivery, init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments with one common deadline, each of the least energy that meets it."""
        self._round = server_round
        self._known.know(offers.client)
        self._delivery.know(offers.client)
        rows, utility = self._shortlist(offers, k, server_round, rng)
        time_s, energy_j = offers.choices("slack", rows)
        able = np.isfinite(time_s).any(axis=1)
        rows, utility, time_s, energy_j = rows[able], utility[able], time_s[able], energy_j[able]
        if not len(rows):
            return self._ask(assign(offers, offers.candidates("slack")[:k], "slack", np.inf))
        round_s = time_s + offers.transfer_s[rows, None]
        best = (-np.inf, 0.0, rows[:0])
        for deadline_s in candidate_deadlines(round_s, self.n_deadlines):
            cost_j = least_cost_by(
                deadline_s, round_s, energy_j, offers.idle_power_w[rows], offers.transfer_s[rows]
            )
            cost_j[offers.available_s[rows] < with_reserve(deadline_s)] = np.inf
            order, value = self._best_prefix(utility, cost_j, deadline_s, k)
            if value > best[0]:
                best = (value, float(deadline_s), rows[order])
        return self._ask(assign(offers, best[2], "slack", with_reserve(best[1])))

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember each participant's loss, how often it took part, and what it delivered."""
        self._known.record(reports, self._round)
        self._delivery.record(reports)

    def _ask(self, assignments: list[RoundAssignment]) -> list[RoundAssignment]:
        self._delivery.ask([assignment.client for assignment in assignments])
        return assignments

    def _shortlist(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> tuple[IntArray, FloatArray]:
        """Rows worth searching over, in order, and their utilities."""
        rows = offers.candidates("slack")
        utility = self._utility(offers, rows, server_round, rng)
        per_tier = max(self.shortlist // _TIERS, k)
        if len(rows) <= _TIERS * per_tier:
            return rows, utility
        rank = -utility / offers.energy_j[rows, 0]
        tiers = tier_members(offers.fastest_round_s("slack")[rows], _TIERS)
        kept = np.concatenate([tier[smallest(rank[tier], per_tier)] for tier in tiers])
        kept.sort()
        return rows[kept], utility[kept]

    def _utility(
        self, offers: Offers, rows: IntArray, server_round: int, rng: Generator
    ) -> FloatArray:
        client = offers.client[rows]
        count = self._known.count[client]
        loss = self._known.loss_or_highest(client)
        highest = float(loss.max(initial=0.0)) or 1.0
        times = np.arange(int(count.max(initial=0)) + 1)  # a table costs less than 100,000 powers
        bonus = highest * np.sqrt(self.curiosity * np.log(max(server_round, 1)) / (1 + times))
        wear = (1.0 + times) ** self.fairness
        utility = offers.examples[rows] * (loss + bonus[count]) / wear[count]
        utility = utility * self._delivery.share[client]
        jitter = 1 + 1e-6 * rng.random(len(rows))  # equal clients take turns by chance
        return np.asarray(np.maximum(utility, 1e-9 * highest) * jitter)

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
