"""A predictor from a workload's signature, corrected by what this unit itself has measured."""

from __future__ import annotations

import math

import numpy as np

from powerctl.boards import Board
from powerctl.bottleneck import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import Workload

UNIT_STD = (0.05, 0.04)
MODE_STD = (0.04, 0.025)


class SignaturePredictor:
    """The cost model of board and workload, times a factor of this unit.

    The unit's factor on time and on power is unknown at first (standard deviation `UNIT_STD`) and
    learned from measurements, each of which also carries the model's error in that mode
    (`MODE_STD`): a normal prior and normal observations of the logarithms, so the posterior is
    closed-form.

    Parameters
    ----------
    board : Board
        The board to predict.
    workload : Workload
        A workload with a signature.

    Attributes
    ----------
    shift_ : tuple of float
        Learned logarithm of the unit's factor on (time, power).
    n_measured_ : int
        Measurements that it was learned from.
    """

    def __init__(self, board: Board, workload: Workload) -> None:
        self.board = board
        self.workload = workload
        self.n_measured_ = 0
        self._sum = (0.0, 0.0)

    @property
    def shift_(self) -> tuple[float, float]:
        """Posterior mean of the logarithm of the unit's factor on (time, power)."""
        time, power = (
            total / mode**2 / (1 / unit**2 + self.n_measured_ / mode**2)
            for total, unit, mode in zip(self._sum, UNIT_STD, MODE_STD, strict=True)
        )
        return time, power

    def partial_fit(self, mode: PowerMode, time_s: float, power_w: float) -> SignaturePredictor:
        """Learn from one measured mode: seconds of a minibatch, and watts."""
        if not (time_s > 0 and power_w > 0 and math.isfinite(time_s * power_w)):
            raise InvalidInput(f"cannot learn from {time_s} s and {power_w} W")
        cost_s, cost_w = self._cost(ModeArrays.of([mode]))
        self._sum = (
            self._sum[0] + math.log(time_s / float(cost_s[0])),
            self._sum[1] + math.log(power_w / float(cost_w[0])),
        )
        self.n_measured_ += 1
        return self

    def predict(self, modes: ModeArrays) -> Prediction:
        """Time and power of a minibatch in each mode, with their relative standard deviations."""
        time_s, power_w = self._cost(modes)
        time_shift, power_shift = self.shift_
        time_std, power_std = (
            math.sqrt(mode**2 + 1 / (1 / unit**2 + self.n_measured_ / mode**2))
            for unit, mode in zip(UNIT_STD, MODE_STD, strict=True)
        )
        return Prediction(
            time_s=time_s * math.exp(time_shift),
            power_w=power_w * math.exp(power_shift),
            time_std=np.full(time_s.shape, time_std),
            power_std=np.full(time_s.shape, power_std),
        )

    def state(self) -> tuple[float, float, float]:
        """What was learned, as numbers that `load_state` takes back."""
        return (*self._sum, float(self.n_measured_))

    def load_state(self, state: tuple[float, float, float]) -> SignaturePredictor:
        """Continue from a saved state."""
        self._sum = (state[0], state[1])
        self.n_measured_ = int(state[2])
        return self

    def _cost(self, modes: ModeArrays) -> tuple[np.ndarray, np.ndarray]:
        if self.workload.signature is None:
            raise InvalidInput(f"{self.workload.name} has no signature to predict from")
        cost = minibatch_cost(
            self.board.hardware, self.workload.signature, *modes, self.workload.batch_size
        )
        return cost.time_s, cost.power_w
