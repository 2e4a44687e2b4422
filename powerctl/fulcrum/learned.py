"""Times and powers of all modes, learned by a regressor from those that a search has measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.search import Search
from powerctl.modes import FloatArray, ModeArrays


class Regressor(Protocol):
    """What scikit-learn calls one, for several outputs."""

    def fit(self, x: FloatArray, y: FloatArray) -> Any:
        """Learn from inputs of shape (n, 5) and targets of shape (n, 2)."""

    def predict(self, x: FloatArray) -> FloatArray:
        """Targets, shape (n, 2)."""


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
