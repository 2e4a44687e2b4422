"""The twin: a simulated board, from the cost model plus what makes real boards differ from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from powerctl.boards import Board
from powerctl.cost_model import minibatch_cost
from powerctl.devices.virtual import VirtualDevice
from powerctl.errors import InvalidInput
from powerctl.modes import PowerMode
from powerctl.workload import Workload


@dataclass(frozen=True)
class Variation:
    """How a real unit departs from the cost model; all but the times are relative, 0.03 = 3 %.

    Attributes
    ----------
    unit_time, unit_power : float
        Between units of one board (POMACS 2022, section 2.4: time within 1 to 8 %, energy within
        5.5 to 9 % over five units).
    mode_time, mode_power : float
        Between the model and a unit, mode by mode: about the error of the calibrated model.
    minibatch_time, minibatch_power : float
        From minibatch to minibatch (PowerTrain logs: median 3 to 5 % in time, tenths of a watt).
    settling_s : float
        Time constant of power: 90 % of a step after 1.8 s (PowerTrain logs).
    switch_s : float
        Time of a mode change. An assumption: no measurement is published.
    """

    unit_time: float = 0.02
    unit_power: float = 0.03
    mode_time: float = 0.03
    mode_power: float = 0.015
    minibatch_time: float = 0.04
    minibatch_power: float = 0.01
    settling_s: float = 0.8
    switch_s: float = 0.2


TYPICAL = Variation()
NO_VARIATION = Variation(**dict.fromkeys(Variation.__dataclass_fields__, 0.0))


class Twin(VirtualDevice):
    """A simulated unit of a board: the cost model, and what makes real units differ from it.

    Parameters
    ----------
    board : Board
        The board whose cost model it follows.
    unit : int
        Which unit it is: the same number is always the same piece of silicon.
    random_state : int or Generator
        The noise from minibatch to minibatch, or its seed.
    variation : Variation
        How it departs from the model; `NO_VARIATION` makes it the model itself.
    """

    def __init__(
        self,
        board: Board,
        *,
        unit: int = 0,
        random_state: int | Generator = 0,
        variation: Variation = TYPICAL,
    ) -> None:
        self._variation = variation
        self._unit = unit
        if not isinstance(random_state, Generator):
            random_state = np.random.default_rng((random_state, unit))
        self._noise = _normal_pairs(random_state)
        self._held: tuple[PowerMode, Workload, float, float] | None = None
        self._steady: dict[tuple[PowerMode, Workload], tuple[float, float]] = {}
        super().__init__(
            board,
            board.space,
            settling_s=self._variation.settling_s,
            switch_s=self._variation.switch_s,
        )

    def steady(self, mode: PowerMode, workload: Workload) -> tuple[float, float]:
        """Mean seconds and watts of a minibatch of this unit in a mode, noise left out."""
        key = (mode, workload)
        if key not in self._steady:
            self._steady[key] = self._steady_cost(mode, workload)
        return self._steady[key]

    def _steady_cost(self, mode: PowerMode, workload: Workload) -> tuple[float, float]:
        time_s, power_w = _model_cost(self.board, workload, mode)
        spread = self._variation
        of_unit, of_mode = _deviations(self._unit, 1), _deviations(self._unit, 2, *mode.values)
        time_shift = spread.unit_time * of_unit[0] + spread.mode_time * of_mode[0]
        power_shift = spread.unit_power * of_unit[1] + spread.mode_power * of_mode[1]
        return time_s * math.exp(time_shift), power_w * math.exp(power_shift)

    def _minibatch(self, workload: Workload) -> tuple[float, float]:
        if self._held is None or self._held[0] is not self._mode or self._held[1] is not workload:
            self._held = (self._mode, workload, *self.steady(self._mode, workload))
        _, _, time_s, power_w = self._held
        time_noise, power_noise = next(self._noise)
        return (
            time_s * math.exp(self._variation.minibatch_time * time_noise),
            power_w * math.exp(self._variation.minibatch_power * power_noise),
        )


def _normal_pairs(rng: Generator) -> Iterator[list[float]]:
    """Endlessly; drawn some at a time, which takes as long as one."""
    while True:
        yield from rng.standard_normal((16, 2)).tolist()


@lru_cache(maxsize=65536)  # a simulation opens the same units again and again
def _deviations(*entropy: int) -> tuple[float, float]:
    """Of time and power, in standard deviations."""
    time, power = np.random.default_rng(entropy).standard_normal(2).tolist()
    return time, power


@lru_cache(maxsize=4096)
def _model_cost(board: Board, workload: Workload, mode: PowerMode) -> tuple[float, float]:
    """Seconds and watts of the cost model; a fleet has many units of one board."""
    if workload.signature is None:
        raise InvalidInput(
            f"the twin cannot time {workload.name}: it has no signature; "
            "fit one with: powerctl twin fit"
        )
    cost = minibatch_cost(board.hardware, workload.signature, *mode.values, workload.batch_size)
    return float(cost.time_s), float(cost.power_w)
