"""Which modes to measure: those that leave least uncertainty about all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray, IntArray, ModeArrays, PowerMode
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.support import DEVIATIONS
from powerctl.profiler import ProfiledMode, switch_order

FIRST, STEP = 6, 4
_CANDIDATE_ROWS = 400  # modes times batch sizes; a random sample of a space says as much as all
FRONT_SHARE, NEAR = 0.5, 1.1
_POWER_WEIGHT = 2.0  # against time: limits are kept by it, and its errors are smaller
_ABSOLUTE_PER_STD = np.sqrt(2 / np.pi)


@dataclass
class DesignedModes:
    """Samples the modes of most information, a few at a time, until the rest is known.

    After each step the predictor learns from what was measured. The next modes are those that
    most reduce the variance of log time and log power, summed over a random sample of all modes:
    the predictor's covariance says that before they are measured.

    Parameters
    ----------
    predictor : GaussianPredictor
        What shall become sure; refitted at each step.
    modes : ModeArrays
        To choose from.
    total : int
        Modes at most.
    time_error, power_error : float
        Stops when the mean errors expected of a mode are below both; 0 never stops early.
    batch_sizes : sequence of int
        All measured in each mode; none means the predictor's own.
    random_state : int
        Of the sample.
    """

    predictor: GaussianPredictor
    modes: ModeArrays
    total: int
    time_error: float = 0.0
    power_error: float = 0.0
    batch_sizes: Sequence[int] = ()
    random_state: int = 0
    expected: tuple[float, float] = field(default=(np.inf, np.inf), init=False)

    def next(self, measured: Sequence[ProfiledMode]) -> Sequence[PowerMode]:
        """The next modes, in the order that saves switches; none when enough is known."""
        table = MeasurementTable.of([entry.measurement for entry in measured], "profile")
        done = {entry.mode for entry in measured}
        sizes = [entry.batch_size for entry in measured] if self.batch_sizes else None
        batch_size = None if sizes is None else np.array(sizes, dtype=np.int64)
        found = self.choose(replace(table, batch_size=batch_size), done)
        return switch_order(found, measured[-1].mode if measured else None)

    def doubts(self, entry: ProfiledMode) -> bool:
        """Whether a measurement lies five deviations or more off what was expected of it."""
        size = entry.batch_size if self.batch_sizes else None
        found = self.predictor.predict(ModeArrays.of([entry.mode]), size)
        off = np.log([entry.time_s / found.time_s[0], entry.power_w / found.power_w[0]])
        stds = np.array([found.time_std[0], found.power_std[0]])
        return bool(np.any(np.abs(off) >= DEVIATIONS * stds))

    def choose(self, table: MeasurementTable, done: set[PowerMode]) -> list[PowerMode]:
        """The next modes, given a table of the modes done."""
        n = min(STEP if done else FIRST, self.total - len(done))
        if n <= 0:
            return []
        self.predictor.fit(table)
        n_sizes = max(len(self.batch_sizes), 1)
        drawn = self._drawn(max(_CANDIDATE_ROWS // n_sizes, 2 * n), len(done))
        candidates = self.modes.take(drawn)
        rows = candidates.take(np.repeat(np.arange(len(drawn)), n_sizes))
        sizes = np.tile(self.batch_sizes, len(drawn)) if self.batch_sizes else None
        covariance, noise = self.predictor.covariance(rows, sizes)
        spread = np.sqrt(np.diag(covariance).reshape(2, -1)).mean(axis=1) * _ABSOLUTE_PER_STD
        self.expected = (float(spread[0]), float(spread[1]))
        if spread[0] <= self.time_error and spread[1] <= self.power_error:
            return []
        free = np.array([candidates.mode(i) not in done for i in range(len(drawn))])
        picked = most_informative(covariance, noise, n_sizes, np.flatnonzero(free), n)
        return [candidates.mode(i) for i in picked]

    def _drawn(self, n: int, n_done: int) -> IntArray:
        """Modes that stand for all: a share at random, the others near the predicted front."""
        rng = np.random.default_rng((self.random_state, n_done))
        shuffled = rng.permutation(len(self.modes.cores))
        if not n_done:
            return shuffled[:n]
        size = self.batch_sizes[-1] if self.batch_sizes else None
        time_s, power_w, _, _ = self.predictor.predict(self.modes, size)
        behind = time_s / fastest_up_to(time_s, power_w)
        near = shuffled[behind[shuffled] < NEAR]
        n_near = min(round(FRONT_SHARE * n), len(near))
        rest = np.setdiff1d(shuffled[:n], near[:n_near], assume_unique=True)
        return np.concatenate([near[:n_near], rest])[:n]


def fastest_up_to(time_s: FloatArray, power_w: FloatArray) -> FloatArray:
    """Least time among all modes of at most a mode's power, for each mode."""
    order = np.lexsort((time_s, power_w))
    fastest = np.empty_like(time_s)
    fastest[order] = np.minimum.accumulate(time_s[order])
    return fastest


def most_informative(
    covariance: FloatArray, noise: FloatArray, n_sizes: int, free: IntArray, n: int
) -> list[int]:
    """Greedily the modes whose measurement most reduces the summed variance of all.

    Parameters
    ----------
    covariance : FloatArray, shape (2 n_rows, 2 n_rows)
        Of log times, then log powers, of rows: the batch sizes of a mode stand together.
    noise : FloatArray, shape (2 n_rows,)
        Variance of measuring them.
    n_sizes : int
        Rows of a mode.
    free : IntArray
        The modes that may be chosen.
    n : int
        How many.
    """
    n_rows = len(noise) // 2
    weight = np.repeat([1.0, _POWER_WEIGHT], n_rows)
    of_mode = np.arange(n_rows).reshape(-1, n_sizes)
    of_mode = np.hstack([of_mode, of_mode + n_rows])  # both outputs of all sizes
    chosen: list[int] = []
    left = free
    for _ in range(min(n, len(free))):
        at = of_mode[left]
        reduction = covariance @ (weight[:, None] * covariance)
        own = covariance[at[:, :, None], at[:, None, :]]
        own = own + noise[at][:, :, None] * np.eye(at.shape[1])
        gain = np.linalg.solve(own, reduction[at[:, :, None], at[:, None, :]])
        best = int(np.trace(gain, axis1=1, axis2=2).argmax())
        rows = at[best]
        column = covariance[:, rows]
        covariance = covariance - column @ np.linalg.solve(own[best], column.T)
        chosen.append(int(left[best]))
        left = np.delete(left, best)
    return chosen
