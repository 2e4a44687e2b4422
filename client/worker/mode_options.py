"""What a device can choose from for its workload: its front within a limit, MAXN, and a preset.

Every mode's time and power are known up to factors of the unit. So the modes that can be on any
unit's front, whatever its factors and its limit, are found once per board and workload: a hundred
or two of thousands. A simulated fleet shares them, and a front costs microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from powerctl.boards import Board, Preset
from powerctl.cost_model import idle_power_w
from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import SAFETY_DEVIATIONS, FixedMode, Front, front_within
from powerctl.modes import FloatArray, IntArray, ModeArrays, ModeSpace, PowerMode
from powerctl.powertrain.correction import CorrectedPredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import Workload, load_workload

Learned = tuple[float, float, float]
UNLEARNED: Learned = (0.0, 0.0, 0.0)
_TIE = 1e-9  # relative: far above rounding, far below what makes a mode better


@dataclass(frozen=True, eq=False)
class ModeOptions:
    """The modes worth choosing on a board, and what is expected of them on any unit.

    What a unit has learned is a state of its predictor.

    Attributes
    ----------
    board, space : Board, ModeSpace
        Whose they are, and all modes.
    predictor : CorrectedPredictor
        Of a unit that has learned nothing.
    modes : ModeArrays, shape (n,)
        All that can be on a front.
    expected : Prediction, shape (n,)
        Of a minibatch in each of them.
    idle_power_w : float
        While waiting, in the lowest mode.
    """

    board: Board
    space: ModeSpace
    predictor: CorrectedPredictor
    modes: ModeArrays
    expected: Prediction
    idle_power_w: float

    @classmethod
    def of(cls, predictor: CorrectedPredictor, board: Board, space: ModeSpace) -> ModeOptions:
        """The options of all units of a board in a mode space (mostly the board's own)."""
        everything = predictor.expected(space.arrays)
        worth = _unbeaten(everything)
        return cls(
            board=board,
            space=space,
            predictor=predictor,
            modes=space.arrays.take(worth),
            expected=Prediction(*(column[worth] for column in everything)),
            idle_power_w=float(idle_power_w(board.hardware, *space.minimum.values)),
        )

    def front(self, learned: Learned, power_limit_w: float) -> Front:
        """The front of a unit within a power limit: that of all modes, by `front_within`."""
        return front_within(self.modes, self.of_unit(learned, self.expected), power_limit_w)

    def least_power_w(self, learned: Learned) -> float:
        """The least power limit within which a unit surely stays in some mode."""
        bounds_w = self.of_unit(learned, self.expected).power_bound_w(SAFETY_DEVIATIONS)
        return float(bounds_w.min())

    def count_within(self, power_limit_w: FloatArray) -> IntArray:
        """How many of the modes, and presets, each limit admits to a unit that has learned nothing.

        Limits that admit equally many admit the same ones.
        """
        bounds_w = self.of_unit(UNLEARNED, self.expected).power_bound_w(SAFETY_DEVIATIONS)
        presets_w = [preset.power_w for preset in self.board.presets]
        return np.searchsorted(np.sort([*bounds_w, *presets_w]), power_limit_w, side="right")

    def maxn_and_preset(
        self, learned: Learned, power_limit_w: float
    ) -> tuple[FixedMode, FixedMode]:
        """MAXN, and the preset for a power limit, on a unit; in a smaller space the mode below."""
        modes, expected = _expected_maxn_and_preset(self, self.board.preset_within(power_limit_w))
        found = self.of_unit(learned, expected)
        maxn, of_preset = map(FixedMode, modes, found.time_s.tolist(), found.energy_j.tolist())
        return maxn, of_preset

    def of_unit(self, learned: Learned, expected: Prediction) -> Prediction:
        """What is expected of any unit, corrected by what one has learned."""
        return copy(self.predictor).load_state(learned).corrected(expected)


def training_workload(name: str) -> Workload:
    """The workload that a client is charged for; raises unless it is a training workload."""
    workload = load_workload(name)
    if workload.kind != "train":
        raise InvalidInput(f"{name} is no training workload; clients train")
    return workload


def mode_options(
    predicting: Callable[[Board, Workload], CorrectedPredictor],
    board: Board,
    space: ModeSpace,
    workload: Workload,
) -> ModeOptions:
    """The options of a device, found once for all units for which the same is expected."""
    predictor = predicting(board, workload)
    return _options(type(predictor), predictor.origin, board, space)


@lru_cache(maxsize=64)
def _options(
    kind: Callable[..., CorrectedPredictor], origin: tuple[Any, ...], board: Board, space: ModeSpace
) -> ModeOptions:
    return ModeOptions.of(kind(*origin), board, space)


@lru_cache(maxsize=512)
def _expected_maxn_and_preset(
    options: ModeOptions, preset: Preset
) -> tuple[tuple[PowerMode, ...], Prediction]:
    modes = (options.space.maximum, options.space.capped(preset.mode.values))
    return modes, options.predictor.expected(ModeArrays.of(modes))


def _unbeaten(expected: Prediction) -> IntArray:
    """Modes that none as fast beats in power, in the order of the space.

    One that is beaten takes more energy as well, and any limit that admits it admits the other, so
    that it is on no front; but that holds only where all are predicted equally surely. Near ties
    stay: a unit's factors may round them either way.
    """
    if np.ptp(expected.power_std):
        return np.arange(len(expected.time_s))
    order = np.lexsort((expected.power_w, expected.time_s))
    least_w = np.minimum.accumulate(expected.power_w[order])
    return np.sort(order[expected.power_w[order] <= least_w * (1 + _TIE)])
