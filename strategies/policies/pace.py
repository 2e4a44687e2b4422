"""pace: clients, their number, the deadline and everyone's pace, chosen together.

| symbol   | meaning                                            | unit | from                      |
|----------|----------------------------------------------------|------|---------------------------|
| S, k     | the clients selected, and the most of them         |      | the search, `per-round`   |
| T        | deadline of the round, `deadline_s`                | s    | the offers' round times   |
| e_i(T)   | cost of client i: training and waiting, `cost_j`   | J    | `least_cost_by`           |
| u_il     | utility of client i's examples of label l,         | 1    | `Pace._utility`, shared   |
|          | `labels`                                           |      | out by `by_label`         |
| gamma    | how slowly returns diminish, 0 to 1                | 1    | a parameter of the policy |
| rho      | price of a second, `rho_w`                         | W    | a parameter of the policy |
| R, c     | number of the round, and how often a client took   | 1    | the reports               |
|          | part before it                                     |      |                           |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Delivery, Experience
from wattfed.strategies.policies.round_cost import candidate_deadlines, least_cost_by
from wattfed.strategies.policies.sampling import smallest
from wattfed.strategies.policies.speed_tiers import tier_members
from wattfed.strategies.policy import assign, with_reserve
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory

_TIERS = 10  # of speed, in the short list
_STEPS = 120  # clients that the greedy searches of a round may add, over all deadlines
_FIRST = 100  # clients of most utility per joule that a greedy search looks at, or 3 k
_SHORT = 1e6  # what a set loses for each client that it has too few


@dataclass
class Pace(Memory):
    """Participants and deadline of the most learning for the energy and the time they take.

    For a deadline T, client i's round costs e_i(T): the least energy on its front that finishes
    by T, plus waiting at idle power until T. With u_il the utility of its examples of label l, the
    policy maximises, over T and sets S of at most k clients,

        log(sum_l (sum_i u_il)^gamma) - log(sum_i e_i(T) + rho T).

    Nobody races to wait: whoever is not the slowest gets the time to run in a mode that costs less.
    Returns diminish in every label, so that the set covers the data, and ends with the client that
    no longer teaches as much per joule as the set does: its size is chosen too, and k is only a
    bound. Hard limits come before: only clients whose front has a point within T, and within their
    energy allowance and battery, and that do not expect to leave before T, are considered.

    Utility is Oort's (Lai et al., OSDI 2021) in idea: examples times the last training loss, plus
    a bonus for what is uncertain, here the highest loss known times sqrt(curiosity ln R / (1 + c))
    in round R for a client that took part c times, all divided by (1 + c)^fairness. A client
    never heard of counts with the highest loss known. A client that, when asked, delivers only in
    a share of the rounds (it is silent, declines, or is too late) has that share of its utility.

    The search is greedy: at each deadline clients are ranked by utility per joule, and where the
    best number of the first ones promises most, the set is built client by client. In a large pool
    it runs over a short list: of each tenth by speed, the clients of most utility per joule, so
    that whatever the deadline, the best of the faster tenths are among them.

    Parameters
    ----------
    gamma : float
        How slowly returns diminish; higher takes more clients.
    rho_w : float
        Price of a second, in watts; higher takes faster clients, and more of them.
    fairness : float
        How strongly past participation counts against a client.
    at_least : int
        Fewest clients to select; the model follows one alone too far. k leaves no choice of number.
    curiosity : float
        Weight of the bonus for clients that are little known.
    racing : bool
        Everyone runs as fast as its limits allow, and waits: what is left without pacing.
    n_deadlines : int
        Candidate deadlines to consider.
    shortlist : int
        Clients to search over, but at least k of each tenth.
    """

    remembers = ("_known", "_delivery", "_round")
    gamma: float = 0.4
    rho_w: float = 30.0
    fairness: float = 2.0
    at_least: int = 2
    curiosity: float = 0.1
    racing: bool = False
    n_deadlines: int = 24
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
        time_s, energy_j = offers.choices(self._pacing, rows)
        able = np.isfinite(time_s).any(axis=1)
        rows, utility, time_s, energy_j = rows[able], utility[able], time_s[able], energy_j[able]
        if not len(rows):
            return self._ask(assign(offers, offers.candidates("slack")[:k], self._pacing, np.inf))
        round_s = time_s + offers.transfer_s[rows, None]
        labels = by_label(utility / utility.max(), offers.label_counts[rows])
        searches = []
        for deadline_s in candidate_deadlines(round_s, self.n_deadlines):
            cost_j = least_cost_by(
                deadline_s, round_s, energy_j, offers.idle_power_w[rows], offers.transfer_s[rows]
            )
            cost_j[offers.available_s[rows] < with_reserve(deadline_s)] = np.inf
            searches.extend(self._searches(labels, cost_j, float(deadline_s), k))
        searches.sort(key=lambda search: search.promise, reverse=True)
        best = (-np.inf, np.inf, rows[:0])
        for search in searches[: max(1, _STEPS // k)]:
            value, picks = search.worth.greedy(self._fewest(k), k)
            value -= _SHORT * max(0, self._fewest(k) - len(picks))
            if value > best[0]:
                best = (value, search.deadline_s, rows[search.order[picks]])
        return self._ask(assign(offers, best[2], self._pacing, with_reserve(best[1])))

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember each participant's loss, how often it took part, and what it delivered."""
        self._known.record(reports, self._round)
        self._delivery.record(reports)

    @property
    def _pacing(self) -> str:
        return "fastest" if self.racing else "slack"

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

    def _fewest(self, k: int) -> int:
        return max(1, min(self.at_least, k))

    def _searches(
        self, labels: FloatArray, cost_j: FloatArray, deadline_s: float, k: int
    ) -> list[_Search]:
        """The search at a deadline; none if nobody can meet it."""
        able = np.flatnonzero(np.isfinite(cost_j))
        if not len(able):
            return []
        rank = -labels[able].sum(axis=1) / cost_j[able]
        order = able[np.argsort(rank, kind="stable")[: max(_FIRST, 3 * k)]]
        worth = Worth(labels[order], cost_j[order], self.rho_w * deadline_s, self.gamma)
        value, fewest = worth.of_prefixes()[:k], self._fewest(k)
        promise = float(value[min(fewest, len(value)) - 1 :].max())
        return [_Search(deadline_s, order, worth, promise - _SHORT * max(0, fewest - len(value)))]


class _Search(NamedTuple):
    """Clients that can meet a deadline, in order of utility per joule.

    `promise` is what the best number of the first ones is worth.
    """

    deadline_s: float
    order: IntArray
    worth: Worth
    promise: float


def by_label(utility: FloatArray, label_counts: FloatArray) -> FloatArray:
    """The utility of each client, shared out over the labels of its examples.

    Parameters
    ----------
    utility : FloatArray, shape (n,)
        Of each client.
    label_counts : FloatArray, shape (n, labels)
        As in the offers; noise for privacy may have made some of them negative. A client that does
        not tell counts as having all labels alike; where nobody tells, there is one label.

    Returns
    -------
    FloatArray, shape (n, labels)
    """
    counts = np.maximum(label_counts, 0.0)
    if not counts.any():
        return utility[:, None]
    total = counts.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, counts / np.maximum(total, 1e-12), 1 / counts.shape[1])
    return np.asarray(utility[:, None] * shares)


@dataclass(frozen=True)
class Worth:
    """What a set of clients teaches against what it costs, as a logarithm.

    log(sum over labels of (utility of the label in the set)^gamma) - log(cost of the set), so that
    a label which a set has plenty of adds less than one that it lacks, and twice the clients teach
    less than twice as much.

    Attributes
    ----------
    labels : FloatArray, shape (n, labels)
        Utility of each client, by label.
    cost_j : FloatArray, shape (n,)
        Of each client, finite.
    fixed_j : float
        Cost of the set as such.
    gamma : float
        How slowly returns diminish, 0 to 1.
    """

    labels: FloatArray
    cost_j: FloatArray
    fixed_j: float
    gamma: float

    def of(self, labels: FloatArray, cost_j: FloatArray) -> FloatArray:
        """The worth of sets with so much utility by label, shape (..., labels), and such costs."""
        return np.asarray(np.log((labels**self.gamma).sum(axis=-1)) - np.log(cost_j + self.fixed_j))

    def of_prefixes(self) -> FloatArray:
        """The worth of the first client, of the first two, and so on; shape (n,)."""
        return self.of(np.cumsum(self.labels, axis=0), np.cumsum(self.cost_j))

    def greedy(self, at_least: int, at_most: int) -> tuple[float, IntArray]:
        """A set that grows by the client that makes it worth most, while it gains by it.

        Returns
        -------
        tuple of float, IntArray
            The worth, and the indices in the order of their choice.
        """
        chosen: list[int] = []
        labels, cost_j, worth = np.zeros(self.labels.shape[1]), 0.0, -np.inf
        free = np.ones(len(self.cost_j), dtype=bool)
        while len(chosen) < min(at_most, len(free)):
            larger = self.of(labels + self.labels, cost_j + self.cost_j)
            best = int(np.where(free, larger, -np.inf).argmax())
            if len(chosen) >= at_least and larger[best] <= worth:
                break
            worth = float(larger[best])
            labels, cost_j = labels + self.labels[best], cost_j + float(self.cost_j[best])
            chosen.append(best)
            free[best] = False
        return worth, np.array(chosen, dtype=np.int64)
