"""A predictor from a workload's signature, corrected by what this unit itself has measured."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from powerctl.boards import Board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.correction import MODE_STD, CorrectedPredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import Workload


class SignaturePredictor(CorrectedPredictor):
    """The cost model of board and workload, times a factor of this unit.

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
        """Board and workload."""
        return self.board, self.workload

    def expected(self, modes: ModeArrays) -> Prediction:
        """What the cost model says."""
        if self.workload.signature is None:
            raise InvalidInput(f"{self.workload.name} has no signature to predict from")
        cost = minibatch_cost(
            self.board.hardware, self.workload.signature, *modes, self.workload.batch_size
        )
        stds = (np.full(cost.time_s.shape, std) for std in MODE_STD)
        return Prediction(cost.time_s, cost.power_w, *stds)

    def expected_in(self, mode: PowerMode) -> tuple[float, float]:
        """Seconds and watts in one mode; found once for all units of a board."""
        return _expected_in(self.board, self.workload, mode)


@lru_cache(maxsize=4096)
def _expected_in(board: Board, workload: Workload, mode: PowerMode) -> tuple[float, float]:
    return CorrectedPredictor.expected_in(SignaturePredictor(board, workload), mode)
