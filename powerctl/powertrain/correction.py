"""Predictors of a kind of board, corrected by what this device itself has measured.

Symbols, each for time and for power:

    m_i   logarithm of the i-th measurement over what is expected in its mode, i = 1 ... n
    d     logarithm of this device's factor on the expectation; unknown
    D     standard deviation of d over devices of a board (`DEVICE_STD`)
    M     standard deviation of the expectation's own error in a mode (`MODE_STD`)

Both are larger for a workload that was only counted (`_COUNTED_DEVICE_STD`, `_COUNTED_MODE_STD`).
With d ~ N(0, D^2) and m_i ~ N(d, M^2), d is normal given the measurements, with

    variance  v = 1 / (1 / D^2 + n / M^2),    mean  v sum(m_i) / M^2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np

from powerctl.boards import Board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.prediction import Prediction, Predictor
from powerctl.workload import Workload

DEVICE_STD = (0.05, 0.04)
MODE_STD = (0.04, 0.025)
# Of a signature from counts: the errors on six measured tables of Jetson Orins (PowerTrain's and
# Fulcrum's), each with estimates.toml fitted to other networks. A table's mean error has a root
# mean square of 0.087 in time and, on a board that was measured, 0.052 in power, to which a
# device's own comes; within a table errors spread by 0.21 and 0.083. Intervals of 90 % then hold
# 93 and 86 % of the modes left out.
_COUNTED_DEVICE_STD = (0.1, 0.07)
_COUNTED_MODE_STD = (0.2, 0.085)
# Of a workload of which nothing is known: how far those that ship differ on an AGX Orin at MAXN.
_UNCOUNTED_STD = (1.15, 0.16)


class CorrectedPredictor(ABC):
    """What is expected of any device of a board, times a factor that this one has shown.

    Attributes
    ----------
    shift_ : tuple of float
        Learned logarithm of the device's factor on (time, power).
    n_measured_ : int
        Measurements that it was learned from.
    """

    def __init__(self) -> None:
        self.n_measured_ = 0
        self._sum = (0.0, 0.0)

    @property
    @abstractmethod
    def origin(self) -> tuple[Any, ...]:
        """What it was made from; predictors of one kind and origin expect the same of a device."""

    @abstractmethod
    def expected(self, modes: ModeArrays) -> Prediction:
        """Time and power of a minibatch in each mode on any device, with their errors there."""

    def expected_in(self, mode: PowerMode) -> tuple[float, float]:
        """Seconds and watts in one mode."""
        expected = self.expected(ModeArrays.of([mode]))
        return float(expected.time_s[0]), float(expected.power_w[0])

    @property
    def stds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The symbols D and M, each of (time, power)."""
        return DEVICE_STD, MODE_STD

    @property
    def _precisions(self) -> tuple[float, float]:
        """Posterior precisions 1 / v of the device's logarithmic factor on (time, power)."""
        time, power = (
            1 / device**2 + self.n_measured_ / mode**2
            for device, mode in zip(*self.stds, strict=True)
        )
        return time, power

    @property
    def shift_(self) -> tuple[float, float]:
        """Posterior mean of the logarithm of the device's factor on (time, power)."""
        time, power = (
            total / mode**2 / precision
            for total, mode, precision in zip(
                self._sum, self.stds[1], self._precisions, strict=True
            )
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
        """What is expected of any device, corrected by what this one has measured."""
        time_shift, power_shift = self.shift_
        time_std, power_std = (
            np.sqrt(error**2 + 1 / precision)
            for error, precision in zip(expected[2:], self._precisions, strict=True)
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


class FittedPredictor(CorrectedPredictor):
    """A fitted predictor at one batch size, times the factor of this device.

    Parameters
    ----------
    fitted : Predictor
    batch_size : int
        Samples of a minibatch.
    """

    def __init__(self, fitted: Predictor, batch_size: int) -> None:
        super().__init__()
        self.fitted = fitted
        self.batch_size = batch_size

    @property
    def origin(self) -> tuple[Predictor, int]:
        """The fitted predictor, and the batch size."""
        return self.fitted, self.batch_size

    def expected(self, modes: ModeArrays) -> Prediction:
        """What the fitted predictor says."""
        return self.fitted.predict(modes, self.batch_size)


class SignaturePredictor(CorrectedPredictor):
    """The cost model of board and workload, times the factor of this device.

    Parameters
    ----------
    board : Board
        The board to predict.
    workload : Workload
        A workload with a signature.
    """

    def __init__(self, board: Board, workload: Workload) -> None:
        super().__init__()
        self.board = board
        self.workload = workload

    @property
    def origin(self) -> tuple[Board, Workload]:
        """The board and the workload that are predicted."""
        return self.board, self.workload

    @property
    def stds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The symbols D and M: larger where the workload was only counted, or even that in part."""
        share = self.workload.counted_share
        if share is None:
            return super().stds
        time, power = (
            math.hypot(device, (1 - share) * unknown)
            for device, unknown in zip(_COUNTED_DEVICE_STD, _UNCOUNTED_STD, strict=True)
        )
        return (time, power), _COUNTED_MODE_STD

    def expected(self, modes: ModeArrays) -> Prediction:
        """What the cost model says."""
        if self.workload.signature is None:
            raise InvalidInput(f"{self.workload.name} has no signature to predict from")
        cost = minibatch_cost(
            self.board.hardware, self.workload.signature, *modes, self.workload.batch_size
        )
        stds = (np.full(cost.time_s.shape, std) for std in self.stds[1])
        return Prediction(cost.time_s, cost.power_w, *stds)

    def expected_in(self, mode: PowerMode) -> tuple[float, float]:
        """Seconds and watts in one mode; found once for all devices of a board."""
        return _expected_in(self.board, self.workload, mode)


@lru_cache(maxsize=4096)
def _expected_in(board: Board, workload: Workload, mode: PowerMode) -> tuple[float, float]:
    return CorrectedPredictor.expected_in(SignaturePredictor(board, workload), mode)
