"""The host: runs steps for real on this machine, on the real clock, in the name of a board."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from powerctl.accelerator import synchronise
from powerctl.boards import Board
from powerctl.cost_model import Hardware, Signature, idle_power_w, minibatch_cost
from powerctl.device import Device, check_wait
from powerctl.devices.meters import Meter, NoMeter
from powerctl.modes import PowerMode
from powerctl.workload import Workload, stand_in


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
        self._lock = threading.Lock()  # energy is read while another thread executes
        self._start_s = self._last_s = time.monotonic()
        self._estimate_j = 0.0
        self._power_w = self._idle_w()
        self.energy_source = (
            self._meter.name if self._metered else f"estimate: cost model of {board.name}"
        )

    def apply(self, mode: PowerMode) -> None:
        """Remember a mode of the space; this machine's clocks stay."""
        self.space.check(mode)
        self._charge(self._power_w)
        self._mode = mode
        self._charge(self._idle_w())

    def mode(self) -> PowerMode:
        """The mode that was applied last; this machine runs as it does."""
        return self._mode

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run the step; returns the seconds that it took. One that raises is charged as well."""
        start_s = self.now()
        self._charge(self._busy_w(workload))
        try:
            if step is not None:
                step()
                synchronise()
        finally:
            self._charge(self._idle_w())
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
        if self._metered:
            return self._meter.energy_j()
        with self._lock:
            return self._estimate_j + self._power_w * (time.monotonic() - self._last_s)

    def restore(self) -> None:
        """Return to the mode found at opening."""
        self.apply(self._found)

    def _charge(self, next_power_w: float) -> None:
        """Add the energy up to now; from here on the power is another."""
        with self._lock:
            now_s = time.monotonic()
            self._estimate_j += self._power_w * (now_s - self._last_s)
            self._last_s, self._power_w = now_s, next_power_w

    def _idle_w(self) -> float:
        return _idle_w(self.board.hardware, self._mode)

    def _busy_w(self, workload: Workload) -> float:
        signature = workload.signature or stand_in(workload.kind)
        return _busy_w(self.board.hardware, self._mode, signature, workload.batch_size)


# Numpy takes 0.1 ms for them, as much as a small turn: so they are kept by mode and batch size.


@lru_cache(maxsize=256)
def _idle_w(hardware: Hardware, mode: PowerMode) -> float:
    return float(idle_power_w(hardware, *mode.values))


@lru_cache(maxsize=4096)
def _busy_w(hardware: Hardware, mode: PowerMode, signature: Signature, batch_size: int) -> float:
    return float(minibatch_cost(hardware, signature, *mode.values, batch_size).power_w)
