"""Whether readings of power can be a board's: a wrong total makes all above it wrong, unseen.

symbol       meaning                                   unit   from
most_w       more than the module can ever draw        W      `most_power_w`
_STUCK_S     a total that stands still for so long     s      a monitor's steps are 8 mA or 20 mA,
             while the load changes is no reading             and it is read every 20 ms
"""

from __future__ import annotations

import logging
import math

import numpy as np

from powerctl.boards import Board
from powerctl.cost_model import cpu_scale, gpu_scale, idle_power_w

_STUCK_S = 120.0
_LOAD_CHANGES = 2
_MARGIN = 1.5  # over the cost model, whose constants are of a few workloads

log = logging.getLogger("powerctl.jetson")


class PowerCheck:
    """Warns once of readings that cannot be the power of a board.

    Parameters
    ----------
    source : str
        Where they are from, in words.
    most_w : float
        More than the board can draw.
    """

    def __init__(self, source: str, most_w: float = math.inf) -> None:
        self._source = source
        self._most_w = most_w
        self._has_warned = False
        self._same_since = (-math.inf, math.nan)
        self._load_changes = 0

    def load_changed(self) -> None:
        """Note that the board works, idles or is clocked otherwise from now on."""
        self._load_changes += 1

    def look(self, now_s: float, power_w: float) -> None:
        """Hold a reading against what can be; the first that cannot is warned of."""
        if power_w != self._same_since[1]:
            self._same_since, self._load_changes = (now_s, power_w), 0
        if self._has_warned:
            return
        still_s = now_s - self._same_since[0]
        said = self.amiss(power_w)
        if still_s > _STUCK_S and self._load_changes >= _LOAD_CHANGES:
            said = f"{power_w:g} W for {still_s:.0f} s, under a load that changed"
        if said:
            self._has_warned = True
            log.warning("the power of %s is not plausible: %s", self._source, said)

    def amiss(self, power_w: float) -> str:
        """Why one reading cannot be the board's power, in words; empty if it can."""
        if power_w < 0:
            return f"{power_w:.3g} W, less than nothing"
        if power_w > self._most_w:
            return f"{power_w:.3g} W, and the board never draws {self._most_w:.3g} W"
        return ""


def most_power_w(board: Board) -> float:
    """Watts that a board of the catalogue never draws; infinite for one that it lacks.

    Half as much again as its cost model has with every part busy at its highest clock, or as its
    highest preset is named: a Nano 20 W, which its supply gives at most, an AGX Orin 88 W.
    """
    if not board.is_catalogued:
        return math.inf
    hardware, top = board.hardware, board.space.maximum
    busy_w = (
        float(idle_power_w(hardware, *top.values))
        + hardware.gpu_busy_w * float(gpu_scale(hardware, np.array(top.gpu_hz, dtype=np.float64)))
        + hardware.core_busy_w
        * top.cores
        * float(cpu_scale(hardware, np.array(top.cpu_khz, dtype=np.float64)))
        + hardware.byte_j * board.peak_bandwidth()
    )
    named_w = [preset.power_w for preset in board.presets if math.isfinite(preset.power_w)]
    return _MARGIN * max(busy_w, *named_w)
