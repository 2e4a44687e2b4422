"""A board that is not there, in step with the real clock: minibatches take as long as on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from powerctl.boards import Board
from powerctl.device import Device
from powerctl.modes import ModeSpace, PowerMode
from powerctl.workload import Workload, stand_in


class PacedDevice:
    """A device with a virtual clock, held to the real one.

    Its clock is never behind: what nothing ran in is idle time. A step that ends sooner here than
    the minibatch would there is waited for; one that takes longer is charged what the minibatch
    costs, and idle for the rest. A workload without a signature costs what a small network of its
    kind does.

    Parameters
    ----------
    device : Device
        A twin, or a fake board.

    Attributes
    ----------
    energy_source : str
        That it is the cost model of a board.
    """

    is_virtual = False

    def __init__(self, device: Device) -> None:
        self._device = device
        self.board: Board = device.board
        self.space: ModeSpace = device.space
        self.power_period_s = device.power_period_s
        self.energy_source = f"the cost model of {device.board.name}, in real time"
        self._lock = threading.RLock()
        self._running = False  # time that passes now is a minibatch's
        self._start_s = time.monotonic() - device.now()

    def __getattr__(self, name: str) -> object:
        """What else the device has, such as a thermometer."""
        if name == "_device":  # not yet there
            raise AttributeError(name)
        return getattr(self._device, name)

    def apply(self, mode: PowerMode) -> None:
        """Apply a mode; returns when it is in force there."""
        with self._lock:
            self._catch_up()
            self._device.apply(mode)
        self._wait()

    def mode(self) -> PowerMode:
        """The mode in force."""
        with self._lock:
            return self._device.mode()

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch; returns its seconds."""
        if workload.signature is None:
            workload = replace(workload, signature=stand_in(workload.kind))
        with self._lock:
            self._catch_up()
            self._running = True
        start_s = self.now()
        try:
            if step is not None:
                step()
        finally:
            with self._lock:
                self._device.execute(workload)
                self._running = False
            self._wait()
        return self.now() - start_s

    def idle(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def now(self) -> float:
        """Real seconds since the device was opened."""
        return time.monotonic() - self._start_s

    def energy_j(self) -> float:
        """Joules of the board since the device was opened; those of a minibatch when it ends."""
        with self._lock:
            self._catch_up()
            return self._device.energy_j()

    def restore(self) -> None:
        """Return to the mode found at opening."""
        with self._lock:
            self._device.restore()

    def _catch_up(self) -> None:
        behind_s = self.now() - self._device.now()
        if behind_s > 0 and not self._running:
            self._device.idle(behind_s)

    def _wait(self) -> None:
        time.sleep(max(0.0, self._device.now() - self.now()))
