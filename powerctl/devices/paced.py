"""A board that is not there, in step with the real clock: minibatches take as long as on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from powerctl.device import Device, DeviceWrapper
from powerctl.modes import PowerMode
from powerctl.workload import Workload, stand_in


class PacedDevice(DeviceWrapper):
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

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.is_virtual = False
        self.energy_source = f"the cost model of {device.board.name}, in real time"
        self._lock = threading.RLock()
        self._running = False  # time that passes now is a minibatch's
        self._start_s = time.monotonic() - device.now()

    def apply(self, mode: PowerMode) -> None:
        """Apply a mode; returns when it is in force there."""
        with self._lock:
            self._catch_up()
            self.device.apply(mode)
        self._wait()

    def mode(self) -> PowerMode:
        """Which mode the board is in."""
        with self._lock:
            return self.device.mode()

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
                self.device.execute(workload)
                self._running = False
            self._wait()
        return self.now() - start_s

    def idle(self, seconds: float) -> None:
        """Sleep: the board idles meanwhile, which is charged at the next look."""
        time.sleep(seconds)

    def now(self) -> float:
        """Real seconds since the device was opened."""
        return time.monotonic() - self._start_s

    def energy_j(self) -> float:
        """Joules of the board since the device was opened; those of a minibatch when it ends."""
        with self._lock:
            self._catch_up()
            return self.device.energy_j()

    def restore(self) -> None:
        """Return to the mode found at opening."""
        with self._lock:
            self.device.restore()

    def _catch_up(self) -> None:
        behind_s = self.now() - self.device.now()
        if behind_s > 0 and not self._running:
            self.device.idle(behind_s)

    def _wait(self) -> None:
        time.sleep(max(0.0, self.device.now() - self.now()))
