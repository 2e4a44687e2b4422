"""The host: runs steps for real on this machine, on the real clock, in the name of a board."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from powerctl.accelerator import synchronise
from powerctl.boards import Board
from powerctl.device import Device, check_wait
from powerctl.devices.estimated import EstimatedEnergy
from powerctl.devices.meters import Meter, NoMeter
from powerctl.modes import PowerMode
from powerctl.workload import Workload


class HostDevice(Device):
    """The machine itself, in place of a board that is not there: real time, and modes in name.

    A mode that is applied is remembered, and has no effect on this machine.

    Parameters
    ----------
    board : Board
        Whose modes there are, and whose cost model estimates energy without a meter.
    meter : Meter, optional
        Counts this machine's energy; by default none.

    Attributes
    ----------
    energy_source : str
        The meter's name, or that energy is an estimate and of what.
    """

    def __init__(self, board: Board, meter: Meter | None = None) -> None:
        super().__init__(board, board.space)
        self._meter = meter or NoMeter()
        self._metered = not math.isnan(self._meter.energy_j())
        self._found = self._mode = board.space.maximum
        self._start_s = time.monotonic()
        self._estimate = EstimatedEnergy(board, self._mode)
        self.energy_source = (
            self._meter.name if self._metered else f"estimate: cost model of {board.name}"
        )

    def apply(self, mode: PowerMode) -> None:
        """Remember a mode of the space; this machine's clocks stay."""
        self.space.check(mode)
        self._mode = mode
        self._estimate.enter(mode)

    def mode(self) -> PowerMode:
        """The mode that was applied last; this machine runs as it does."""
        return self._mode

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run the step; returns the seconds that it took. One that raises is charged as well."""
        start_s = self.now()
        with self._estimate.running(workload):
            if step is not None:
                step()
                synchronise()
        return self.now() - start_s

    def idle(self, seconds: float) -> None:
        """Sleep: this machine is idle as it is."""
        check_wait(seconds)
        time.sleep(seconds)

    def now(self) -> float:
        """Real seconds since the device was opened."""
        return time.monotonic() - self._start_s

    def energy_j(self) -> float:
        """Joules since opening: measured of this machine, or estimated of the board."""
        return self._meter.energy_j() if self._metered else self._estimate.energy_j()

    def restore(self) -> None:
        """Return to the mode found at opening."""
        self.apply(self._found)
