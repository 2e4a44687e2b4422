"""A fleet's energy budget: the most utility that it buys, by integer programming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Experience
from wattfed.strategies.policies.round_cost import candidate_deadlines, least_cost_by
from wattfed.strategies.policies.sampling import smallest
from wattfed.strategies.policy import assign, with_reserve
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory


@dataclass
class EnergyBudget(Memory):
    """The shortest round that the budget allows, and in it the clients of most utility.

    The idea of FedZero (Wiesner et al., e-Energy 2024), with one global budget over predicted costs
    as in FedJoule (Euro-Par 2025) instead of its power domains; no claim on the figures of either.
    Of some candidate deadlines the shortest is taken by which k clients can finish within the
    round's budget B, waiting until then included; if there is none, that by which most can. Then

        maximise sum b_i u_i  subject to  sum b_i e_i <= B, sum b_i = k, b_i in {0, 1}

    is solved by HiGHS over a short list of clients: those of most utility, those of most utility
    per joule and, so that k clients always fit where they could, the cheapest. Utility is Oort's; a
    client never heard of has the highest loss known. As in FedZero's code, participants of the last
    round are left out afterwards unless their utility is above a quantile of the participants', and
    let in again in each round with the chance min(alpha / (count - mean count), 1).

    Parameters
    ----------
    power : str
        Power policy of the selected; it also says which choices a client's cost is taken from.
    round_energy_j : float
        Budget of a round; 0 takes k times the median of the clients' energies at their fastest.
    total_energy_j : float
        Budget of the run, of which each of the remaining `rounds` may take an equal part.
    rounds : int
        Rounds of the run, for that part; 0 lets any round take all that is left.
    alpha : float
        How soon participants are let in again.
    left_out : float
        The quantile; 1 (as in its README) leaves all participants out.
    shortlist : int
        Candidates of the integer program, but at least three for each of the k.
    n_deadlines : int
        Candidate deadlines.
    """

    remembers = ("_known", "_left_out", "_spent_j", "_round")
    power: str = "slack"
    round_energy_j: float = 0.0
    total_energy_j: float = np.inf
    rounds: int = 0
    alpha: float = 1.0
    left_out: float = 1.0
    shortlist: int = 300
    n_deadlines: int = 48
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _left_out: IntArray = field(default_factory=lambda: np.arange(0), init=False, repr=False)
    _spent_j: float = field(default=0.0, init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients whose predicted costs stay within the budget."""
        self._round = server_round
        self._known.know(offers.client)
        rows = self._let_in(offers, offers.candidates(self.power), k, rng)
        if not len(rows):
            return []
        utility = self._utility(offers, rows)
        price_j = self._price_j(offers, rows)
        budget_j = self._budget_j(k, price_j)
        listed = self._listed(utility, price_j, k)
        rows, utility = rows[listed], utility[listed]
        deadline_s, cost_j, count = self._shortest(offers, rows, k, budget_j)
        if not count:
            return []
        chosen = most_utility_within(utility, cost_j, budget_j, count)
        return assign(offers, rows[chosen], self.power, with_reserve(deadline_s))

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember utilities, who took part, and the energy it took."""
        self._known.record(reports, self._round)
        trained = [report for report in reports if report.minibatches]
        clients = np.array([report.client for report in trained if report.used], dtype=np.int64)
        utility = self._known.utility[clients]
        low = utility <= np.quantile(utility, self.left_out) if len(clients) else clients > 0
        self._left_out = np.union1d(self._left_out, clients[low])
        ends_s = max((report.round_s for report in trained), default=0.0)
        self._spent_j += sum(
            r.energy_j + r.idle_power_w * (ends_s - r.time_s) + r.radio_j for r in trained
        )

    def _let_in(self, offers: Offers, rows: IntArray, k: int, rng: Generator) -> IntArray:
        """Rows without recent participants, but for those drawn; all rows if too few are left."""
        count = self._known.count[offers.client[rows]]
        excess = self._known.count[self._left_out] - (count.mean() if len(count) else 0.0)
        released = rng.random(len(excess)) * np.maximum(excess, 1e-9) < self.alpha
        self._left_out = self._left_out[~released]
        allowed = rows[~np.isin(offers.client[rows], self._left_out)]
        return allowed if len(allowed) >= k else rows

    def _utility(self, offers: Offers, rows: IntArray) -> FloatArray:
        client = offers.client[rows]
        guess = offers.examples[rows] * self._known.loss_or_highest(client)
        known = self._known.utility[client]
        return np.maximum(np.where(np.isnan(known), guess, known), 1e-9)

    def _price_j(self, offers: Offers, rows: IntArray) -> FloatArray:
        """Energy by which clients are compared before any deadline is known."""
        cost_j = offers.fastest_energy_j(self.power) + offers.fixed_j
        return np.maximum(cost_j[rows], 1e-9)

    def _budget_j(self, k: int, price_j: FloatArray) -> float:
        round_j = self.round_energy_j or k * float(np.median(price_j))
        rounds_left = max(1, self.rounds - self._round + 1)
        return min(round_j, (self.total_energy_j - self._spent_j) / rounds_left)

    def _listed(self, utility: FloatArray, price_j: FloatArray, k: int) -> IntArray:
        third = max(self.shortlist, 3 * k) // 3
        if len(utility) <= 3 * third:
            return np.arange(len(utility))
        ranks = [smallest(rank, third) for rank in (-utility, -utility / price_j, price_j)]
        return np.unique(np.concatenate(ranks))

    def _shortest(
        self, offers: Offers, rows: IntArray, k: int, budget_j: float
    ) -> tuple[float, FloatArray, int]:
        """The deadline, everyone's cost by then, and how many of k clients the budget pays."""
        time_s, energy_j = offers.choices(self.power, rows)
        round_s = time_s + offers.transfer_s[rows, None]
        idle_w, transfer_s = offers.idle_power_w[rows], offers.transfer_s[rows]
        best: tuple[float, FloatArray, int] = (np.inf, np.full(len(rows), np.inf), 0)
        for deadline_s in candidate_deadlines(round_s, self.n_deadlines):
            cost_j = least_cost_by(deadline_s, round_s, energy_j, idle_w, transfer_s)
            if self.power != "maxn":
                cost_j[offers.available_s[rows] < with_reserve(deadline_s)] = np.inf
            total_j = np.cumsum(np.sort(cost_j)[:k])
            count = int((total_j <= budget_j).sum())
            if count > best[2]:
                best = (float(deadline_s), cost_j, count)
            if count >= min(k, len(rows)):
                break
        return best


def most_utility_within(
    utility: FloatArray, cost_j: FloatArray, budget_j: float, count: int
) -> IntArray:
    """Indices of `count` clients of the most utility whose costs stay within a budget.

    Parameters
    ----------
    utility, cost_j : FloatArray, shape (n,)
        Of each client; an infinite cost excludes it.
    budget_j : float
        Joules; the `count` cheapest clients must cost no more.
    count : int
        How many to select.

    Returns
    -------
    IntArray, shape (count,)
        Optimal to within a thousandth of utility. The cheapest, should the solver end without
        an answer.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # only here: it loads slowly

    able = np.flatnonzero(np.isfinite(cost_j))
    value, cost = utility[able] / utility[able].max(), cost_j[able] / budget_j
    solved = milp(
        c=-value,
        integrality=np.ones(len(able)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(
            np.vstack([cost, np.ones(len(able))]), [-np.inf, count], [1 - 1e-9, count]
        ),
        options={"mip_rel_gap": 1e-3, "node_limit": 2000},
    )
    if solved.x is None:
        return able[smallest(cost, count)]
    return able[smallest(-solved.x, count)]
