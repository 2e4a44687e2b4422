"""ALS: active-learning-based search, which profiles once and then looks up, as published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerctl.fulcrum.learned import MakeRegressor, learned_costs, small_network
from powerctl.fulcrum.search import Search, Solution
from powerctl.modes import FloatArray, IntArray
from powerctl.pareto import pareto_front


@dataclass(frozen=True)
class ALS:
    """Active-learning-based search.

    A campaign profiles a few random modes, fits predictors, profiles points that are spread along
    the power of the predicted front of time and power, and repeats. Any problem is then a look-up
    among what was profiled. Each choice of batch sizes has a front of its own, of the sum of its
    times and the larger power; a mode is profiled with all of them.

    Parameters
    ----------
    seed : int
        Of the random modes and of the predictors.
    first_modes : int
        Random modes to start from.
    per_round : int
        Points of each front that are profiled in a round.
    make_regressor : callable
        Predictor from a random state; the published one is a neural network.

    References
    ----------
    Fulcrum (arXiv 2509.20205), its section on ALS.
    """

    seed: int = 0
    first_modes: int = 10
    per_round: int = 10
    make_regressor: MakeRegressor = small_network
    name: str = "als"

    def solve(self, search: Search) -> Solution:
        """Look up what is known; with nothing known, run a campaign first."""
        if search.known is None:
            self.campaign(search)
        return search.solution(f"look-up among {len(search.measured_modes)} profiled modes")

    def campaign(self, search: Search) -> None:
        """Profile to the cap, for any bounds of the problem."""
        rng = np.random.default_rng(self.seed)
        n = min(self.first_modes, search.left, len(search.candidates))
        for mode in rng.choice(len(search.candidates), n, replace=False).tolist():
            search.profile(mode)
        while search.left > 0:
            before = len(search.profiled)
            self._profile_fronts(search)
            if len(search.profiled) == before:
                return

    def _profile_fronts(self, search: Search) -> None:
        """A round: points of the front of each choice, in turn."""
        time_s, power_w = learned_costs(search, self.make_regressor, self.seed)
        time_s = np.where(search.measured, search.time_s, time_s)
        power_w = np.where(search.measured, search.power_w, power_w)
        for choice in search.problem.choices:
            jobs = list(choice)
            larger_w = power_w[:, jobs].max(axis=1)
            front = pareto_front(time_s[:, jobs].sum(axis=1), larger_w)
            fresh = front[~search.measured[front].all(axis=1)]
            for mode in spread(fresh, larger_w, self.per_round).tolist():
                search.profile(mode)


def spread(modes: IntArray, power_w: FloatArray, n: int) -> IntArray:
    """At most `n` of some modes, evenly spread along their power."""
    if len(modes) <= n:
        return modes
    power = power_w[modes]
    wanted = np.linspace(power.min(), power.max(), n)
    nearest = np.abs(power[None, :] - wanted[:, None]).argmin(axis=1)
    return np.asarray(modes[np.unique(nearest)], dtype=np.int64)
