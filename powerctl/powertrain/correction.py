"""A predictor of a kind of board, corrected by what this unit itself has measured."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.prediction import Prediction

DEVICE_STD = (0.05, 0.04)
MODE_STD = (0.04, 0.025)


class CorrectedPredictor(ABC):
    """What is expected of any unit, times a factor of this one.

    The unit's factor on time and on power is unknown at first (standard deviation `DEVICE_STD`) and
    learned from measurements, each of which also carries the expectation's error in that mode
    (`MODE_STD`): a normal prior and normal observations of the logarithms, so the posterior is
    closed-form.

    Attributes
    ----------
    shift_ : tuple of float
        Learned logarithm of the unit's factor on (time, power).
    n_measured_ : int
        Measurements that it was learned from.
    """

    def __init__(self) -> None:
        self.n_measured_ = 0
        self._sum = (0.0, 0.0)

    @property
    @abstractmethod
    def origin(self) -> tuple[Any, ...]:
        """What it was made from: predictors of one kind and origin expect the same of any unit."""

    @abstractmethod
    def expected(self, modes: ModeArrays) -> Prediction:
        """Time and power of a minibatch in each mode on any unit, with their errors there."""

    def expected_in(self, mode: PowerMode) -> tuple[float, float]:
        """Seconds and watts in one mode."""
        expected = self.expected(ModeArrays.of([mode]))
        return float(expected.time_s[0]), float(expected.power_w[0])

    @property
    def shift_(self) -> tuple[float, float]:
        """Posterior mean of the logarithm of the unit's factor on (time, power)."""
        time, power = (
            total / mode**2 / (1 / unit**2 + self.n_measured_ / mode**2)
            for total, unit, mode in zip(self._sum, DEVICE_STD, MODE_STD, strict=True)
        )
        return time, power

    def partial_fit(self, mode: PowerMode, time_s: float, power_w: float) -> CorrectedPredictor:
        """Learn from one measured mode: seconds of a minibatch, and watts."""
        if not (time_s > 0 and power_w > 0 and math.isfinite(time_s * power_w)):
            raise InvalidInput(f"cannot learn from {time_s} s and {power_w} W")
        expected_s, expected_w = self.expected_in(mode)
        self._sum = (
            self._sum[0] + math.log(time_s / expected_s),
            self._sum[1] + math.log(power_w / expected_w),
        )
        self.n_measured_ += 1
        return self

    def predict(self, modes: ModeArrays) -> Prediction:
        """Time and power of a minibatch in each mode, with their relative standard deviations."""
        return self.corrected(self.expected(modes))

    def corrected(self, expected: Prediction) -> Prediction:
        """What is expected of any unit, corrected by what this one has measured."""
        time_shift, power_shift = self.shift_
        time_std, power_std = (
            np.sqrt(error**2 + 1 / (1 / unit**2 + self.n_measured_ / mode**2))
            for error, unit, mode in zip(expected[2:], DEVICE_STD, MODE_STD, strict=True)
        )
        return Prediction(
            time_s=expected.time_s * math.exp(time_shift),
            power_w=expected.power_w * math.exp(power_shift),
            time_std=time_std,
            power_std=power_std,
        )

    def state(self) -> tuple[float, float, float]:
        """What was learned, as numbers that `load_state` takes back."""
        return (*self._sum, float(self.n_measured_))

    def load_state(self, state: tuple[float, float, float]) -> CorrectedPredictor:
        """Continue from a saved state."""
        self._sum = (state[0], state[1])
        self.n_measured_ = int(state[2])
        return self
