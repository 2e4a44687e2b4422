"""Tuning: the mode that saves energy at little cost in time, predicted first, then measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import FloatArray, IntArray, ModeArrays, PowerMode
from powerctl.powertrain.design import DesignedModes
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.prediction import Prediction

Measure = Callable[[PowerMode], Measurement]

# What is made least, of time and power.
OBJECTIVES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "energy": lambda time_s, power_w: time_s * power_w,
    "energy-delay": lambda time_s, power_w: time_s**2 * power_w,
}
_WORTH_MEASURING = 1e-3  # of the objective: the improvement expected of a mode


@dataclass(frozen=True)
class TuningGoal:
    """What a tuned mode is good for.

    Attributes
    ----------
    objective : str
        One of `OBJECTIVES`.
    slowdown : float
        How much slower than the baseline it may be: 0.05 is 5 %.
    power_limit_w : float
        What its power may be at most.
    """

    objective: str = "energy"
    slowdown: float = 0.05
    power_limit_w: float = math.inf

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InvalidInput(
                f"objective is one of {', '.join(OBJECTIVES)}, not {self.objective!r}"
            )
        if not self.slowdown >= 0 or not self.power_limit_w > 0:
            raise InvalidInput("a slow-down must be at least 0, and a power limit positive")

    def value(self, time_s: FloatArray, power_w: FloatArray) -> FloatArray:
        """The objective of given times and powers, to be made least."""
        return OBJECTIVES[self.objective](time_s, power_w)

    def best(self, time_s: FloatArray, power_w: FloatArray, baseline_s: float) -> int | None:
        """Index of the best choice that keeps the bounds; None if none does."""
        kept = (time_s <= baseline_s * (1 + self.slowdown)) & (power_w <= self.power_limit_w)
        if not kept.any():
            return None
        return int(np.where(kept, self.value(time_s, power_w), np.inf).argmin())

    def improvement(self, costs: Prediction, baseline_s: float, best: float) -> FloatArray:
        """Share of `best` by which each mode is expected to improve on it, bounds kept.

        The expectation of a log-normal value (Jones et al. 1998), times the probability of each
        bound.
        """
        std = np.maximum(np.hypot(costs.time_std, costs.power_std), 1e-6)
        below = np.log(best / self.value(costs.time_s, costs.power_w))
        cdf = np.vectorize(NormalDist().cdf, otypes=[float])
        gain = cdf(below / std) - np.exp(std**2 / 2 - below) * cdf(below / std - std)
        slack = np.log(baseline_s * (1 + self.slowdown) / costs.time_s)
        probability = cdf(slack / np.maximum(costs.time_std, 1e-6))
        if math.isfinite(self.power_limit_w):
            room = np.log(self.power_limit_w / costs.power_w)
            probability = probability * cdf(room / np.maximum(costs.power_std, 1e-6))
        return np.asarray(np.maximum(gain, 0) * probability)


@dataclass(frozen=True)
class Tuning:
    """What tuning found: the chosen mode, the baseline, and all measurements.

    Attributes
    ----------
    baseline, chosen : Measurement
        Both measured; they are the same where nothing better was found.
    measured : tuple of Measurement
        All that was measured, in order.
    predicted : Prediction
        Of all modes, after that.
    """

    baseline: Measurement
    chosen: Measurement
    measured: tuple[Measurement, ...]
    predicted: Prediction

    @property
    def energy_saved(self) -> float:
        """Share of the baseline's energy."""
        return 1 - self.chosen.energy_j / self.baseline.energy_j

    @property
    def slowdown(self) -> float:
        """Of the chosen mode against the baseline."""
        return self.chosen.time_s / self.baseline.time_s - 1


def tune_mode(
    predictor: GaussianPredictor,
    modes: ModeArrays,
    baseline: PowerMode,
    measure: Measure,
    goal: TuningGoal,
    *,
    profile: int = 10,
    attempts: int = 10,
) -> Tuning:
    """Profile a few modes, then measure those from which most is expected.

    Parameters
    ----------
    predictor : GaussianPredictor
        What is known of the workload, with one batch size; it is fitted to what is measured.
    modes : ModeArrays
        To choose from.
    baseline : PowerMode
        One of them, to compare with.
    measure : callable
        From a mode to a measurement.
    goal : TuningGoal
        What is wanted.
    profile : int
        Modes measured to learn from, the baseline included.
    attempts : int
        Candidates measured after that; fewer if nothing is expected of more.
    """
    measured: list[Measurement] = []
    done: set[PowerMode] = set()

    def take(mode: PowerMode) -> None:
        measured.append(measure(mode))
        done.add(mode)

    take(baseline)
    design = DesignedModes(predictor, modes, profile)
    while found := design.choose(_table(measured), done):
        for mode in found:
            take(mode)
    at_baseline = measured[0]
    for left in range(attempts, -1, -1):
        costs = predictor.fit(_table(measured)).predict(modes)
        best = _best(measured, goal, at_baseline)
        rest = _unmeasured(modes, done)
        value = goal.value(np.array([best.time_s]), np.array([best.power_w]))
        expected = goal.improvement(costs, at_baseline.time_s, float(value[0]))[rest]
        if not left or not len(rest) or expected.max() < _WORTH_MEASURING:
            return Tuning(at_baseline, best, tuple(measured), costs)
        take(modes.mode(int(rest[expected.argmax()])))
    raise AssertionError("the last round returns")


def _table(measured: list[Measurement]) -> MeasurementTable:
    """All are of the predictor's own batch size."""
    return replace(MeasurementTable.of(measured, "measured"), batch_size=None)


def _best(measured: list[Measurement], goal: TuningGoal, baseline: Measurement) -> Measurement:
    times, powers = (np.array([getattr(m, n) for m in measured]) for n in ("time_s", "power_w"))
    row = goal.best(times, powers, baseline.time_s)
    return baseline if row is None else measured[row]


def _unmeasured(modes: ModeArrays, done: set[PowerMode]) -> IntArray:
    free = [modes.mode(row) not in done for row in range(len(modes.cores))]
    return np.flatnonzero(free).astype(np.int64)
