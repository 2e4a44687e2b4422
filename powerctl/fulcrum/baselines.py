"""What other solvers are held against: random modes, MAXN, brute force, a network's predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.als import MakeRegressor, learned_costs, small_network
from powerctl.fulcrum.search import Search, Solution, best_of


@dataclass(frozen=True)
class RandomModes:
    """The best of `n` modes drawn at random, or of as many as the cap allows."""

    n: int = 50
    seed: int = 0

    @property
    def name(self) -> str:
        """With the number of modes."""
        return f"random-{self.n}"

    def solve(self, search: Search) -> Solution:
        """Profile them with every batch size."""
        _profile_random(search, self.n, self.seed)
        return search.solution(f"{len(search.profiled)} random modes")


@dataclass(frozen=True)
class Maxn:
    """The highest mode, if it keeps the bounds."""

    name: str = "maxn"

    def solve(self, search: Search) -> Solution:
        """Profile it with every batch size."""
        if search.left > 0:
            highest = np.array(search.candidates.space.shape) - 1
            search.profile(search.candidates.nearest(highest))
        return search.solution("the highest mode")


@dataclass(frozen=True)
class Optimal:
    """Brute force: every mode with every batch size; the cap must allow it."""

    name: str = "optimal"

    def solve(self, search: Search) -> Solution:
        """Profile everything that is not known."""
        self.campaign(search)
        return search.solution("every mode")

    def campaign(self, search: Search) -> None:
        """Profile everything; raises `InvalidInput` if the cap is too low."""
        for mode in np.flatnonzero(~search.measured.all(axis=1)).tolist():
            if search.problem.choices and not search.profile(mode):
                raise InvalidInput(
                    f"brute force needs all {len(search.candidates)} modes; the cap is {search.cap}"
                )


@dataclass(frozen=True)
class NeuralNetwork:
    """The best by predictions of a network that learned `n` random modes.

    Its answer is one that was not measured, and says so; it may break the bounds.
    """

    n: int = 250
    seed: int = 0
    make_regressor: MakeRegressor = small_network

    @property
    def name(self) -> str:
        """With the number of modes."""
        return f"nn-{self.n}"

    def solve(self, search: Search) -> Solution:
        """Profile random modes with every batch size, learn, and answer from predictions."""
        _profile_random(search, self.n, self.seed)
        if not search.profiled:
            return search.solution("nothing to learn from")
        time_s, power_w = learned_costs(search, self.make_regressor, self.seed)
        evaluation = search.problem.evaluate(time_s, power_w)
        found = best_of(evaluation)
        reason = f"predicted from {len(search.profiled)} random modes, not measured"
        if found is None:
            return search.answer(None, {}, math.nan, {}, reason, predicted=True)
        mode, choice = found
        return search.answer(
            search.candidates.mode(mode),
            search.problem.chosen_sizes(choice),
            search.problem.value(float(evaluation.loss[found])),
            search.problem.figures(time_s[mode], power_w[mode], choice),
            reason,
            predicted=True,
        )


def _profile_random(search: Search, n: int, seed: int) -> None:
    count = min(n, search.left, len(search.candidates))
    rng = np.random.default_rng(seed)
    for mode in rng.choice(len(search.candidates), max(count, 0), replace=False).tolist():
        search.profile(mode)
