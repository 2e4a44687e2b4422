"""ALS: active-learning-based search as published, and the regressors that it learns costs with.

======  =======================================================  ====  ==========================
symbol  meaning                                                  unit  here
======  =======================================================  ====  ==========================
m       a mode's cores, and its clocks of CPU, GPU and memory    1 Hz  `Search.candidates`
b       batch size of a job                                      1     `Job.batch_size`
t, p    time of a minibatch, and power of the module meanwhile   s, W  `time_s`, `power_w`
======  =======================================================  ====  ==========================

A regressor for each role learns log(t), log(p) from log(m), log(b). A choice of batch sizes, one
for each job j, takes sum t_j at the power max p_j, of which each mode is a point; their front is
where modes are profiled next.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.search import Search, Solution
from powerctl.modes import FloatArray, ModeArrays
from powerctl.pareto import evenly_spread, pareto_front


class Regressor(Protocol):
    """What scikit-learn calls one, for several outputs."""

    def fit(self, x: FloatArray, y: FloatArray) -> Any:
        """Learn from inputs of shape (n, 5) and targets of shape (n, 2)."""

    def predict(self, x: FloatArray) -> FloatArray:
        """Predicted targets, shape (n, 2), of inputs of shape (n, 5)."""


MakeRegressor = Callable[[int], Regressor]  # from a random state


def small_network(random_state: int) -> Regressor:
    """A multilayer perceptron that fits 50 measurements in a tenth of a second."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPRegressor(
        hidden_layer_sizes=(32,),
        activation="tanh",
        solver="lbfgs",
        alpha=0.1,
        max_iter=300,
        random_state=random_state,
    )
    regressor: Regressor = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), network), transformer=StandardScaler()
    )
    return regressor


def learned_costs(
    search: Search, make: MakeRegressor, random_state: int
) -> tuple[FloatArray, FloatArray]:
    """Seconds and watts of every job in every mode, one regressor for each role.

    Inputs are the logarithms of the mode's four values and of the batch size, targets those of time
    and power.

    Parameters
    ----------
    search : Search
        With some modes measured for each role.
    make : callable
        Makes an unfitted regressor.
    random_state : int
        Its seed.

    Returns
    -------
    tuple of FloatArray
        Predictions, shape (n_modes, n_jobs) each.
    """
    jobs = search.problem.jobs
    inputs = np.stack([_inputs(search.candidates.modes, job) for job in jobs], axis=1)
    targets = np.log(np.stack([search.time_s, search.power_w], axis=-1))
    predicted = np.empty_like(targets)
    for role in dict.fromkeys(job.role for job in jobs):
        columns = [column for column, job in enumerate(jobs) if job.role == role]
        x, y = inputs[:, columns].reshape(-1, 5), targets[:, columns].reshape(-1, 2)
        known = np.isfinite(y[:, 0])
        regressor = make(random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of networks that could go on learning
            regressor.fit(x[known], y[known])
        predicted[:, columns] = regressor.predict(x).reshape(-1, len(columns), 2)
    costs = np.exp(predicted)
    return costs[..., 0], costs[..., 1]


def _inputs(modes: ModeArrays, job: Job) -> FloatArray:
    size = np.full(modes.cores.shape, job.batch_size or 1)
    return np.log(np.stack([*modes, size], axis=1).astype(np.float64))


@dataclass(frozen=True)
class ALS:
    """Active-learning-based search: profile along predicted fronts, then look up.

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
            for mode in evenly_spread(fresh, larger_w, self.per_round).tolist():
                search.profile(mode)
