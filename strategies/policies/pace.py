"""pace: clients, their number, the deadline and everyone's pace, chosen together.

| symbol     | meaning                                                        | here             |
|------------|----------------------------------------------------------------|------------------|
| S, k       | the clients selected, and the most of them                     | `per-round`      |
| T          | deadline of the round                                          | `deadline_s`     |
| e_i(T)     | joules of client i's round: training, and waiting until T, at  | `least_cost_by`  |
|            | the input of its supply                                        |                  |
| P          | price of a second, in watts                                    | `Pace._price_w`  |
| n_i, p_i   | examples of client i, over the mean of the candidates; and     | `size`           |
|            | over the sum of the set                                        |                  |
| q_i        | what its examples have to teach: n_i loss_i / sqrt(1 + c_i)    | `Pace._teaching` |
| c_i        | how often it has taken part                                    | `count`          |
| D_i        | its last update                                                | `UpdateSummary`  |
| loss_i     | the last that it reported; before, a moving mean of what       | `Learned`        |
|            | clients had when they were heard for the first time            | `.first_loss`    |
| rho        | mean cosine of two clients' updates: what they have in common  | `Learned.rho`    |
| s_i, g     | sketch of D_i over the round's root mean square norm, and the  | `Learned.common` |
|            | moving mean of sketches, less what their clients are known for |                  |
| r_i        | s_i - g: where client i pulls the model                        | `residual`       |
| kappa      | how much of r_i is found again in its next update              | `Learned.kept`   |
| m(S)       | sum_S p_i kappa (r_i - their mean): where the set pulls beside | `pull`           |
|            | all who have been heard; who has not is taken to be as those   |                  |
| a          | - debt / 2: where it should                                    | `aim`            |
| H(S), A    | share of a set's examples with clients that have been heard;   | `heard`,         |
|            | sum of the squares of these clients' shares                    | `shared`         |
| N(S)       | variance of what the set teaches, over that of what it should  | `noise`          |
| c          | half of what a round's step takes off the next round's updates | `Learned.reach`  |
|            | along itself, over the step: 1/2 ends where the loss is least, |                  |
|            | 1 where it is as high as before                                |                  |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from powerctl.modes import FloatArray, IntArray
from powerctl.statistics import lower_median
from wattfed.strategies.accounting import ALWAYS_ON, CHARGED, TRAINING
from wattfed.strategies.offers import WEIGHT_CAP, Offers
from wattfed.strategies.policies.experience import Delivery, Experience
from wattfed.strategies.policies.round_cost import candidate_deadlines, least_cost_by
from wattfed.strategies.policies.sampling import smallest
from wattfed.strategies.policies.speed_tiers import tier_members
from wattfed.strategies.policy import assign, with_reserve
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory
from wattfed.strategies.summaries import PLACES, UpdateSummary

_TIERS = 10  # of speed, in the short list
_REMEMBERED = 20_000  # clients whose pull is kept, those heard last: 20 MB
# weights of the past, of moving means over rounds, and over clients heard again
_OLD, _OLD_PULL, _OLD_KEPT = 0.9, 0.8, 0.97
_FEW = 2000  # clients in a search, whose products take 32 MB
_LEAST_RHO = 0.02  # of 50 clients and more every set is noise
_LEAST_REACH = 0.02  # as short steps as make no difference
_LEAST_GAIN = 0.05  # where noise takes away what is gained, the less of it the better


@dataclass
class Pace(Memory):
    """Participants and deadline of the most learning for the energy and the time they take.

    For a deadline T, client i's round costs e_i(T): the least energy on its front that finishes
    by T, plus waiting at idle power until T. The policy maximises, over T and sets S of at most k
    clients,

        log(mean_S q_i) + log(1 - c (1 + N(S) / rho)) - log(sum_S e_i(T) + P T)
        N(S) = |m(S) - a|^2
               + (1 - rho) (sum_S p_i^2 (1 - kappa^2 [i heard]) + A kappa^2 (H(S) - H(all))^2).

    Nobody races to wait: whoever is not the slowest gets the time to run in a mode that costs less.
    The second term is by how much the loss falls in a round, as its second-order expansion has it
    (McCandlish et al. 2018, arXiv 1812.06162, section 2.2): a step D along the gradient G gains
    |G|^2 - c |D|^2, and |D|^2 is |G|^2 (1 + N / rho) on average. For equal, independent clients
    N / rho is B / k, with their gradient noise scale B = (1 - rho) / rho. There the step is then
    made as long as pays; here it is the clients' own, and how long that is shows in the next
    round's updates. While steps are short, few clients learn as much in a round as many do; near
    the end the noise has to be averaged away. So the number of clients is chosen too, and k is only
    a bound. Sets are preferred that pull the model where all clients
    together would (as in DivFL, Balakrishnan et al., ICLR 2022), and what one lacks the next ones
    make up for (a debt, as in herding). The last term is of the clients nobody has heard: the mean
    of 1 / A others may be off theirs, and a set of these others is off by as much. Without it the
    same few are asked for as long as they are warm or near, and the model follows them. No label is
    asked for.

    Utility is Oort's (Lai et al., OSDI 2021) in idea: examples times the last loss. A client never
    heard of has what others had when they were heard for the first time: where the model follows a
    few clients, whose losses fall, others are tried. A client that, when asked, delivers only in a
    share of the rounds has that share of its utility. Hard limits come before: only clients whose
    front has a point within T, and within their energy allowance and battery, and that do not
    expect to leave before T, are considered.

    The search is greedy, at all deadlines at once: a set grows by the client that makes it worth
    most, while it gains by it. In a large pool it runs over a short list: of each tenth by speed,
    the clients of most utility per joule.

    What a round costs follows from what is to be paid (`wattfed.strategies.accounting`). Charged is
    the above. Of a fleet that is always on, P is its whole idle power, and e_i is what comes on top
    of that. Where training alone counts, e_i has no waiting, and P is the idle power of the set's
    boards alone: it is not paid for, but a run shall end.

    Parameters
    ----------
    accounting : str
        Which joules count.
    price : float
        Of a second, where the fleet's idle power is not charged: as a share of the idle power of
        k boards, or of the set's; higher takes faster clients, and more of them.
    at_least : int
        Fewest clients to select; the model follows one alone too far. k leaves no choice of number.
    racing : bool
        Everyone runs as fast as its limits allow, and waits: what is left without pacing.
    n_deadlines : int
        Candidate deadlines to consider.
    shortlist : int
        Clients to search over, but at least k of each tenth.
    """

    observes_updates: ClassVar[Literal[True]] = True
    remembers = ("_known", "_delivery", "_learned", "_round")
    accounting: str = CHARGED
    price: float = 1.0
    at_least: int = 2
    racing: bool = False
    n_deadlines: int = 32
    shortlist: int = 1000
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _delivery: Delivery = field(default_factory=Delivery, init=False, repr=False)
    _learned: Learned = field(default_factory=lambda: Learned(), init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments with one common deadline, each of the least energy that meets it."""
        self._round = server_round
        self._known.know(offers.client)
        self._delivery.know(offers.client)
        rows, teaching = self._shortlist(offers, k, rng)
        time_s, energy_j = offers.choices(self._pacing, rows)
        able = np.isfinite(time_s).any(axis=1)
        rows, teaching, time_s, energy_j = rows[able], teaching[able], time_s[able], energy_j[able]
        if not len(rows):
            return self._ask(assign(offers, offers.candidates("slack")[:k], self._pacing, np.inf))
        round_s = time_s + offers.transfer_s[rows, None]
        deadlines_s = candidate_deadlines(round_s, self.n_deadlines)
        cost = self._costs(offers, rows, round_s, energy_j, deadlines_s)
        pull = self._learned.pull(offers.client[rows], offers.examples[rows])
        search = SetSearch(teaching, pull, cost, self._price_w(offers, k) * deadlines_s)
        at, picks = search.best(max(1, min(self.at_least, k)), k)
        self._learned.owe(pull, picks)
        deadline_s = with_reserve(float(deadlines_s[at]))
        return self._ask(assign(offers, rows[picks], self._pacing, deadline_s))

    def observe(
        self,
        reports: Sequence[RoundReport],
        summaries: Mapping[int, UpdateSummary] = MappingProxyType({}),
    ) -> None:
        """Remember losses, who took part and delivered, and what the updates have in common."""
        trained = [report for report in reports if report.minibatches]
        self._known.know(np.array([report.client for report in trained], dtype=np.int64))
        self._learned.meet([r.loss for r in trained if np.isnan(self._known.loss[r.client])])
        self._known.record(reports, self._round)
        self._delivery.record(reports)
        examples = {report.client: report.examples for report in reports}
        heard = [client for client in sorted(summaries) if examples.get(client, 0) > 0]
        self._learned.hear(
            np.array(heard, dtype=np.int64),
            np.array([examples[client] for client in heard], dtype=float),
            np.array([summaries[client].norm for client in heard], dtype=float),
            np.array([summaries[client].sketch for client in heard]).reshape(-1, PLACES),
        )

    @property
    def _pacing(self) -> str:
        return "fastest" if self.racing else "slack"

    def _ask(self, assignments: list[RoundAssignment]) -> list[RoundAssignment]:
        self._delivery.ask([assignment.client for assignment in assignments])
        return assignments

    def _costs(
        self,
        offers: Offers,
        rows: IntArray,
        round_s: FloatArray,
        energy_j: FloatArray,
        deadlines_s: FloatArray,
    ) -> FloatArray:
        """What clients cost in a round until each deadline, as accounted; shape (deadlines, n)."""
        is_training = self.accounting == TRAINING
        idle_w, transfer_s = offers.idle_power_w[rows], offers.transfer_s[rows]
        carrier_w, efficiency = offers.carrier_w[rows], offers.supply_efficiency[rows]
        waiting_w = np.zeros(len(rows)) if is_training else idle_w
        beside_j = idle_w * (transfer_s - offers.overhead_s[rows])
        costs = np.empty((len(deadlines_s), len(rows)))
        for cost, deadline_s in zip(costs, map(float, deadlines_s), strict=True):
            module_j = least_cost_by(deadline_s, round_s, energy_j, waiting_w, transfer_s)
            if is_training:
                cost[:] = module_j + beside_j + self.price * idle_w * deadline_s
            else:
                cost[:] = (module_j + carrier_w * deadline_s) / efficiency
            if self.accounting == ALWAYS_ON:
                cost -= (idle_w + carrier_w) / efficiency * deadline_s
                np.maximum(cost, 0.0, out=cost)
            cost[offers.available_s[rows] < with_reserve(deadline_s)] = np.inf
        return costs

    def _price_w(self, offers: Offers, k: int) -> float:
        """What a second costs, whoever is selected."""
        if self.accounting == TRAINING:
            return 0.0
        idle_w = offers.idle_supply_w
        if self.accounting == ALWAYS_ON:
            return float(idle_w[offers.available_s > 0].sum())
        return self.price * k * float(idle_w.mean())

    def _shortlist(self, offers: Offers, k: int, rng: Generator) -> tuple[IntArray, FloatArray]:
        """Rows worth searching over, in order, and what they have to teach."""
        rows = offers.candidates("slack")
        teaching = self._teaching(offers, rows, rng)
        per_tier = max(self.shortlist // _TIERS, k)
        if len(rows) <= _TIERS * per_tier:
            return rows, teaching
        rank = -teaching / offers.energy_j[rows, 0]
        tiers = tier_members(offers.fastest_round_s("slack")[rows], _TIERS)
        kept = np.concatenate([tier[smallest(rank[tier], per_tier)] for tier in tiers])
        kept.sort()
        return rows[kept], teaching[kept]

    def _teaching(self, offers: Offers, rows: IntArray, rng: Generator) -> FloatArray:
        """What each client's examples have to teach; the mean is about 1 at first."""
        client = offers.client[rows]
        loss = self._known.loss[client]
        usual = self._learned.first_loss
        loss = np.where(np.isfinite(loss), loss, usual)
        size = relative(offers.examples[rows])
        worth = size * loss / np.sqrt(1.0 + self._known.count[client])
        worth = np.maximum(worth * self._delivery.share[client], 1e-9 * max(usual, 1e-9))
        jitter = 1 + 1e-6 * rng.random(len(rows))  # equal clients take turns by chance
        return np.asarray(worth * jitter)


def relative(examples: IntArray) -> FloatArray:
    """The examples of each client over the mean of all."""
    return np.asarray(examples * (len(examples) / max(float(examples.sum()), 1e-12)))


class Pull(NamedTuple):
    """Where clients pull the model, and where all of them together should.

    Attributes
    ----------
    size : FloatArray, shape (n,)
        Examples of each client, over their mean.
    residual : FloatArray, shape (n, places)
        kappa r_i; zeros of a client never heard of.
    heard : FloatArray, shape (n,)
        The size of a client that has been heard, 0 of others.
    unsure : FloatArray, shape (n,)
        Variance that is left of a client's update: (1 - rho) (1 - kappa^2 [heard]).
    shared : float
        Variance of what all those heard are off by: (1 - rho) kappa^2 A.
    aim : FloatArray, shape (places,)
        What a set should have.
    rho : float
        Mean cosine of two clients' updates.
    reach : float
        c, of the steps so far.
    """

    size: FloatArray
    residual: FloatArray
    heard: FloatArray
    unsure: FloatArray
    shared: float
    aim: FloatArray
    rho: float
    reach: float


@dataclass
class Learned(Memory):
    """What the updates so far have in common, and where each client's leads.

    Attributes
    ----------
    clients : IntArray, shape (m,)
        Who has been heard of, who was heard last at the end.
    residuals : float32 array, shape (m, places)
        r of each.
    common, debt : FloatArray, shape (places,)
        g, and what the sets so far have pulled too much.
    pairs, cosines : float
        Weight of the pairs of updates seen, and of their cosines.
    heard, kept_sum : float
        Weight of the clients heard again, and of the cosines of their r with the last one.
    rounds : int
        With updates.
    last_clients, last_share, last_parts : array, shapes (m,), (m,) and (m, places)
        Of the last round: who was heard, by what weight, and the weighted sketches.
    moved, taken : float
        Weight of the steps so far, and of what they took off the updates along them.
    met, first_losses : float
        Weight of the clients heard for the first time, and of their losses.
    """

    remembers = (
        *("clients", "residuals", "common", "debt"),
        *("pairs", "cosines", "heard", "kept_sum", "rounds", "first_losses", "met"),
        *("last_clients", "last_share", "last_parts", "moved", "taken"),
    )
    clients: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    residuals: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, PLACES), dtype=np.float32)
    )
    common: FloatArray = field(default_factory=lambda: np.zeros(PLACES))
    debt: FloatArray = field(default_factory=lambda: np.zeros(PLACES))
    pairs: float = 0.0
    cosines: float = 0.0
    heard: float = 10.0  # as if ten clients had been heard again, at a half
    kept_sum: float = 5.0
    rounds: int = 0
    first_losses: float = 0.0
    met: float = 0.0
    last_clients: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    last_share: FloatArray = field(default_factory=lambda: np.zeros(0))
    last_parts: FloatArray = field(default_factory=lambda: np.zeros((0, PLACES)))
    moved: float = 0.0
    taken: float = 0.0

    @property
    def rho(self) -> float:
        """Mean cosine of two clients' updates; 0.2 at first."""
        guess = 10 * _OLD**self.rounds
        return max((self.cosines + 0.2 * guess) / (self.pairs + guess), _LEAST_RHO)

    @property
    def reach(self) -> float:
        """How far a round's step goes: c; a quarter at first."""
        guess = _OLD**self.rounds
        return max((self.taken + 0.5 * guess) / (self.moved + guess) / 2, _LEAST_REACH)

    @property
    def kept(self) -> float:
        """How much of a client's pull is found again in its next update: kappa."""
        return self.kept_sum / self.heard

    def pull(self, clients: IntArray, examples: IntArray) -> Pull:
        """Where some candidates pull, and should."""
        size = relative(examples)
        order = np.argsort(self.clients, kind="stable")
        known = np.isin(clients, self.clients)
        at = order[np.searchsorted(self.clients, clients[known], sorter=order)]
        heard = size * known
        share = heard / max(float(heard.sum()), 1e-12)
        residual = np.zeros((len(clients), PLACES))
        residual[known] = self.residuals[at]
        residual[known] = self.kept * (residual[known] - share @ residual)
        unsure = (1 - self.rho) * (1 - self.kept**2 * known.astype(np.float64))
        shared = (1 - self.rho) * self.kept**2 * float(share @ share)
        return Pull(size, residual, heard, unsure, shared, -0.5 * self.debt, self.rho, self.reach)

    def owe(self, pull: Pull, picks: IntArray) -> None:
        """Remember how far a set that is chosen pulls beside the mean."""
        if len(picks):
            size = pull.size[picks]
            drawn = size @ pull.residual[picks] / size.sum()
            self.debt = 0.5 * self.debt + drawn

    def hear(
        self, clients: IntArray, examples: FloatArray, norms: FloatArray, sketches: FloatArray
    ) -> None:
        """Learn from a round's updates: examples and norms of shape (m,), sketches (m, places).

        Nobody's counts as longer than some medians of the round's, so that one that lies about its
        work leaves the others as they are.
        """
        sound = np.isfinite(norms) & (norms > 0) & np.isfinite(sketches).all(axis=1)
        clients, examples = clients[sound], examples[sound]
        norms, sketches = norms[sound], sketches[sound]
        if not len(clients):
            return
        shorter = np.minimum(1.0, WEIGHT_CAP * lower_median(norms) / norms)
        norms, sketches = shorter * norms, shorter[:, None] * sketches
        share = examples / examples.sum()
        parts = share[:, None] * sketches
        self._compare(share, norms, parts)
        self._look_back(clients, share, parts)
        scaled = sketches / math.sqrt(float(share @ norms**2))
        _, now, then = np.intersect1d(clients, self.clients, return_indices=True)
        foretold = np.zeros_like(scaled)
        foretold[now] = self.kept * self.residuals[then]
        old = _OLD_PULL if self.rounds else 0.0
        self.common = old * self.common + (1 - old) * (share @ (scaled - foretold))
        self.rounds += 1
        new = (scaled - self.common).astype(np.float32)
        self._find_again(self.residuals[then], new[now])
        others = np.delete(self.clients, then), np.delete(self.residuals, then, axis=0)
        self.clients = np.concatenate([others[0], clients])[-_REMEMBERED:]
        self.residuals = np.concatenate([others[1], new])[-_REMEMBERED:]

    @property
    def first_loss(self) -> float:
        """The loss of a client that is heard for the first time; 1 before any is."""
        return self.first_losses / self.met if self.met else 1.0

    def meet(self, losses: Sequence[float]) -> None:
        """Learn from the losses of those who are heard for the first time."""
        for loss in filter(math.isfinite, losses):
            self.first_losses = _OLD * self.first_losses + loss
            self.met = _OLD * self.met + 1

    def _compare(self, share: FloatArray, norms: FloatArray, parts: FloatArray) -> None:
        """Enter the mean cosine of the pairs of a round, weighted by what each moves the model."""
        self.cosines, self.pairs = _OLD * self.cosines, _OLD * self.pairs
        moved = share * norms
        possible = float(moved.sum() ** 2 - (moved**2).sum())
        if len(share) < 2 or possible <= 0:
            return
        pairs = len(share) * (len(share) - 1) / 2
        self.cosines += pairs * min(1.0, max(-1.0, _in_common(parts) / possible))
        self.pairs += pairs

    def _look_back(self, clients: IntArray, share: FloatArray, parts: FloatArray) -> None:
        """Enter what the last round's step has taken off this round's updates along it.

        Nobody's update is compared with its own, which has more in common than the gradient.
        """
        self.moved, self.taken = _OLD * self.moved, _OLD * self.taken
        last, step = self.last_parts, self.last_parts.sum(axis=0)
        _, now, then = np.intersect1d(clients, self.last_clients, return_indices=True)
        along = float(step @ parts.sum(axis=0) - (last[then] * parts[now]).sum())
        others = 1 - float(self.last_share[then] @ share[now])  # weight of the pairs in it
        pairs = 1 - float(self.last_share @ self.last_share)
        square = float(((last**2).sum(axis=1) / self.last_share).sum())
        if len(last) > 1 and square > 0:
            self.taken += (others * _in_common(last) - pairs * along) / square
            self.moved += others * pairs * float(step @ step) / square
        self.last_clients, self.last_share, self.last_parts = clients, share, parts

    def _find_again(self, before: NDArray[np.float32], new: NDArray[np.float32]) -> None:
        """Enter how much the pulls of clients heard again are like their last ones."""
        for last, now in zip(before, new, strict=True):
            length = float(np.linalg.norm(last) * np.linalg.norm(now))
            cosine = float(last @ now) / length if length > 0 else 0.0
            self.kept_sum = _OLD_KEPT * self.kept_sum + max(cosine, 0.0)
            self.heard = _OLD_KEPT * self.heard + 1


def _in_common(parts: FloatArray) -> float:
    """The sum of the products of all pairs of vectors."""
    return float((parts.sum(axis=0) ** 2).sum() - (parts**2).sum())


class SetSearch:
    """A greedy search for the set worth most, at all deadlines at once.

    Parameters
    ----------
    teaching : FloatArray, shape (n,)
        q of each client.
    pull : Pull
        Of the same.
    cost_j : FloatArray, shape (deadlines, n)
        Of each client by each deadline; infinite for who cannot meet it.
    fixed_j : FloatArray, shape (deadlines,)
        What a round costs until each deadline, whoever is in it.
    """

    def __init__(
        self, teaching: FloatArray, pull: Pull, cost_j: FloatArray, fixed_j: FloatArray
    ) -> None:
        self._teaching, self._pull = teaching, pull
        self._cost_j, self._fixed_j = cost_j, fixed_j
        self._beside = pull.size[:, None] * (pull.residual - pull.aim)
        few = len(teaching) <= _FEW  # then all products at once are the least work
        self._products = self._beside @ self._beside.T if few else None
        self._length = np.einsum("ij,ij->i", self._beside, self._beside)
        self._unsure = pull.size**2 * pull.unsure
        self._of_all = float(pull.heard.sum() / pull.size.sum())

    def best(self, at_least: int, at_most: int) -> tuple[int, IntArray]:
        """The deadline's index, and the indices of the clients."""
        n_deadlines, n = self._cost_j.shape
        every = np.arange(n_deadlines)
        free = np.isfinite(self._cost_j)
        worth, count = np.zeros(n_deadlines), np.zeros(n_deadlines, dtype=np.int64)
        size, heard, teaching, unsure = np.zeros((4, n_deadlines, 1))
        cost_j = self._fixed_j[:, None].copy()
        length, along = np.zeros((n_deadlines, 1)), np.zeros((n_deadlines, n))
        chosen: list[list[int]] = [[] for _ in every]
        going = free.any(axis=1)
        while going.any():
            sizes = size + self._pull.size
            noise = length + 2 * along + self._length + unsure + self._unsure
            beside = (heard + self._pull.heard) / sizes - self._of_all
            noise = np.maximum(noise, 0.0) / sizes**2 + self._pull.shared * beside**2
            longer = 1 + noise / self._pull.rho
            gain = np.maximum(1 - self._pull.reach * longer, _LEAST_GAIN / longer)
            larger = gain * (teaching + self._teaching) / (1 + count[:, None])
            larger = np.where(free, larger / (cost_j + self._cost_j), -1.0)
            pick = larger.argmax(axis=1)
            value = larger[every, pick]
            going &= (value >= 0) & ((count < at_least) | (value > worth)) & (count < at_most)
            for at in np.flatnonzero(going).tolist():
                chosen[at].append(int(pick[at]))
            now, its = every[going], pick[going]
            worth[now], free[now, its] = value[going], False
            count[now] += 1
            size[now, 0] += self._pull.size[its]
            heard[now, 0] += self._pull.heard[its]
            teaching[now, 0] += self._teaching[its]
            unsure[now, 0] += self._unsure[its]
            cost_j[now, 0] += self._cost_j[now, its]
            length[now, 0] += 2 * along[now, its] + self._length[its]
            along[now] += self._along(its)
        fewest = np.minimum(count, at_least)
        at = int(np.lexsort((worth, fewest))[-1])
        return at, np.array(chosen[at], dtype=np.int64)

    def _along(self, clients: IntArray) -> FloatArray:
        """How far everyone pulls where some do, shape (m, n)."""
        if self._products is not None:
            return np.asarray(self._products[clients])
        return np.asarray(self._beside[clients] @ self._beside.T)
