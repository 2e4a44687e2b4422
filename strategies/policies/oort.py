"""Oort: clients of high statistical utility that are fast enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.random import Generator

from powerctl.errors import UnknownName
from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Experience
from wattfed.strategies.policies.sampling import smallest, weighted_sample
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory

_CHOICES = {
    "explore_by": ("speed", "reward"),
    "pacer": ("rising", "both-ways"),
    "losers": ("ignored", "mean"),
    "rounded_down": ("exploited", "explored"),
}


@dataclass
class Oort(Memory):
    """Exploration and exploitation of utility under a preferred duration (Lai et al., OSDI 2021).

    A client's utility is its samples times the root mean square of their losses, clipped, scaled
    to about [0, 1], plus the temporal uncertainty sqrt(0.1 ln R / L) of a client last used in round
    L; if its round takes longer than the preferred duration T, all is multiplied by (T / t) to the
    power of `penalty`. A share of the round explores clients never used, until there is none. The
    pacer raises T when the utility that is harvested falls: the mean that the exploited of a round
    report of it.

    The defaults are the paper's, and those of its artefact where the paper is silent;
    `as_in_fedscale` are FedScale's. T is a percentile of the durations of all clients that have
    ever made an offer, as in both codes (the paper's pacer adds a constant number of seconds).
    Durations are those that the offers predict: a measured duration would be that of the power
    policy, and with deadline slack everybody looks as slow as the slowest. What both codes do and
    this does not: fail where nobody, or too few, have been used before, and take the score after
    the last exploited one for the cut-off.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    exploration, exploration_decay, least_exploration : float
        Share of a round that explores: at first, its factor in each round, and its least.
    percentile : float
        Of the durations, where T starts; 100 sets no preferred duration.
    pacer : str
        ``"rising"``: T rises when utility fell from one window to the next (paper);
        ``"both-ways"``: T rises when utility stagnates, and falls when it jumps (FedScale).
    pacer_step, pacer_delta : int, float
        Rounds in a window, and the step of T in percentiles.
    clip : float
        Quantile at which utilities are clipped.
    penalty : float
        Exponent of the penalty of slow clients.
    cut_off : float
        Clients with at least this share of the last exploited score are drawn from.
    pool : float
        But at least so many times the clients to exploit are drawn from.
    window : float
        Exploration draws from so many times the clients it needs.
    explore_by : str
        ``"speed"`` (paper) or ``"reward"``: samples, penalised as above (FedScale).
    rounded_down : str
        The number ``"exploited"`` (artefact) or ``"explored"`` (FedScale; for a small k none is).
    losers : str
        Clients of an over-committed round whose update came too late are ``"ignored"`` (paper) or
        get the ``"mean"`` utility of the round (artefact).
    blacklist_rounds : int
        Clients used more often are left out; -1 for never.
    blacklist_share : float
        Largest share of the clients that are left out.
    """

    remembers = (
        *("_share", "_percentile", "_known", "_duration_s"),
        *("_exploited", "_harvest", "_round"),
    )
    power: str = "slack"
    exploration: float = 0.9
    exploration_decay: float = 0.95
    least_exploration: float = 0.2
    percentile: float = 10.0
    pacer: str = "rising"
    pacer_step: int = 20
    pacer_delta: float = 5.0
    clip: float = 0.98
    penalty: float = 2.0
    cut_off: float = 0.95
    pool: float = 1.0
    window: float = 5.0
    explore_by: str = "speed"
    rounded_down: str = "exploited"
    losers: str = "ignored"
    blacklist_rounds: int = -1
    blacklist_share: float = 0.3
    _share: float = field(init=False, repr=False)
    _percentile: float = field(init=False, repr=False)
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _duration_s: FloatArray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _exploited: IntArray = field(default_factory=lambda: np.arange(0), init=False, repr=False)
    _harvest: list[float] = field(default_factory=list, init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownName(name, getattr(self, name), known)
        self._share, self._percentile = self.exploration, self.percentile

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients, some exploited and some explored."""
        self._round = server_round
        self._known.know(offers.client)
        self._exploited = np.arange(0)
        rows = self._candidates(offers)
        round_s = offers.fastest_round_s(self.power)
        self._register(offers.client[rows], round_s[rows])
        rows = self._admitted(offers, rows)
        self._share = self._next_share()
        self._pace(server_round)
        if not len(rows):
            return []
        slowness = self._slowness(round_s[rows])
        used = self._known.count[offers.client[rows]] > 0
        old, new = np.flatnonzero(used), np.flatnonzero(~used)
        explored = int(k * self._share)
        if self.rounded_down == "exploited":
            explored = k - int(k * (1 - self._share))
        wanted = min(k - explored, len(old))
        score = self._scores(offers, rows[old], server_round) * slowness[old]
        picks = self._exploit(score, wanted, rng)
        self._exploited = offers.client[rows[old[picks]]]
        tried = new[self._explore(offers, rows[new], slowness[new], k - len(picks), rng)]
        chosen = np.concatenate([old[picks], tried])
        if len(chosen) < k:  # nobody is left to explore
            more = rng.permutation(np.delete(old, picks))[: k - len(chosen)]
            chosen = np.concatenate([chosen, more])
        return assign(offers, rows[chosen], self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember utilities; see `losers` for updates that came too late."""
        kept = [report for report in reports if report.used]
        self._known.record(kept, self._round)
        late = [report for report in reports if not report.used]
        winners = [report.client for report in kept if report.minibatches]
        paid = self._exploited[np.isin(self._exploited, winners)]
        self._harvest.append(float(self._known.utility[paid].mean()) if len(paid) else 0.0)
        if self.losers == "mean" and winners:
            mean = float(self._known.utility[winners].mean())
            self._known.record(late, self._round)
            for report in late:
                self._known.utility[report.client] = mean

    def _candidates(self, offers: Offers) -> IntArray:
        return offers.candidates(self.power)

    def _reward(self, utility: FloatArray, offers: Offers, rows: IntArray) -> FloatArray:
        """Scaled reward of clients used before, from their clipped utilities."""
        least, most = float(utility.min()), float(utility.max())
        return (utility - 0.999 * least) / max(most - least, 1e-4)

    def _admitted(self, offers: Offers, rows: IntArray) -> IntArray:
        """Rows without the black list: the clients used most, if too often, up to a share."""
        if self.blacklist_rounds < 0:
            return rows
        count = self._known.count[offers.client[rows]]
        most = int(self.blacklist_share * len(rows))
        listed = smallest(-count.astype(float), most)
        listed = listed[count[listed] > self.blacklist_rounds]
        return np.delete(rows, listed)

    def _register(self, clients: IntArray, round_s: FloatArray) -> None:
        """Remember how long the clients' rounds are predicted to take."""
        extra = len(self._known.count) - len(self._duration_s)
        self._duration_s = np.pad(self._duration_s, (0, extra), constant_values=np.nan)
        self._duration_s[clients] = round_s

    def _next_share(self) -> float:
        """The share of the round that explores: none once everyone has been used."""
        registered = ~np.isnan(self._duration_s)
        if registered.any() and (self._known.count[registered] > 0).all():
            return 0.0
        return max(self._share * self.exploration_decay, self.least_exploration)

    def _pace(self, server_round: int) -> None:
        """Move the preferred duration, once in a window."""
        step = self.pacer_step
        if server_round < 2 * step or server_round % step or len(self._harvest) < 2 * step:
            return
        now, before = sum(self._harvest[-step:]), sum(self._harvest[-2 * step : -step])
        change = abs(now - before)
        if self.pacer == "rising":
            rises, falls = now < before, False
        else:
            rises, falls = change <= 0.1 * before, change >= 5 * before
        if rises:
            self._percentile = min(100.0, self._percentile + self.pacer_delta)
        elif falls:
            self._percentile = max(self.pacer_delta, self._percentile - self.pacer_delta)

    def _slowness(self, round_s: FloatArray) -> FloatArray:
        """The factor by which clients slower than the preferred duration lose."""
        registered_s = self._duration_s[~np.isnan(self._duration_s)]
        if self._percentile >= 100 or not len(registered_s):
            return np.ones(len(round_s))
        place = int(len(registered_s) * self._percentile / 100)  # less than its length
        preferred_s = float(np.partition(registered_s, place)[place])
        return np.asarray(np.minimum(preferred_s / np.maximum(round_s, 1e-9), 1.0) ** self.penalty)

    def _scores(self, offers: Offers, rows: IntArray, server_round: int) -> FloatArray:
        """Reward and temporal uncertainty of clients used before."""
        if not len(rows):
            return np.zeros(0)
        client = offers.client[rows]
        utility = self._known.utility[client]
        clipped = np.minimum(utility, np.quantile(utility, self.clip))
        age = np.log(max(server_round, 1)) / self._known.last_round[client]
        return np.asarray(self._reward(clipped, offers, rows) + np.sqrt(0.1 * age))

    def _exploit(self, score: FloatArray, wanted: int, rng: Generator) -> IntArray:
        """Indices of so many scores, drawn from those near the best."""
        if not wanted:
            return np.zeros(0, dtype=np.int64)
        fewest = min(len(score), max(wanted, round(self.pool * wanted)))
        falling = -np.partition(-score, (wanted - 1, fewest - 1))
        threshold = min(self.cut_off * falling[wanted - 1], falling[fewest - 1])
        near = np.flatnonzero(score >= threshold)
        return near[weighted_sample(score[near], wanted, rng)]

    def _explore(
        self, offers: Offers, rows: IntArray, slowness: FloatArray, wanted: int, rng: Generator
    ) -> IntArray:
        """Indices of so many clients never used, drawn from the most promising ones."""
        if self.explore_by == "speed":
            weight = 1.0 / np.maximum(offers.fastest_round_s(self.power)[rows], 1e-9)
        else:
            weight = offers.examples[rows] * slowness
        best = smallest(-weight, round(self.window * wanted))
        return best[weighted_sample(weight[best], wanted, rng)]


as_in_fedscale = partial(
    Oort,
    exploration_decay=0.98,
    least_exploration=0.3,
    percentile=30.0,
    pacer="both-ways",
    clip=0.9,
    cut_off=0.05,
    pool=10.0,
    explore_by="reward",
    rounded_down="explored",
    losers="mean",
)
"""Oort with the defaults of FedScale's code."""
