"""A simulated device that heats up, and throttles when it is too hot."""

from __future__ import annotations

import math
from collections.abc import Callable

from powerctl.cost_model import idle_power_w
from powerctl.device import Device, DeviceWrapper
from powerctl.thermal import Thermal
from powerctl.workload import Workload

_LEAST_SPARE = 0.1
"""Of a minibatch's power, that is above idle even where nothing can be sustained: the clocks of
throttled boards do not stop, see the lowest GPU clocks of the catalogue beside the highest."""


class HeatedDevice(DeviceWrapper):
    """A device with a virtual clock, and the temperature that its power leads to.

    A board that throttles skips clock pulses until what it draws can be carried off: here it idles
    after a minibatch for as long as that takes.

    Parameters
    ----------
    device : Device
        What runs the minibatches.
    thermal : Thermal
        How it heats and cools.
    celsius : float
        Its temperature now.

    Attributes
    ----------
    celsius : float
        Its temperature, when time passed last.
    """

    def __init__(self, device: Device, thermal: Thermal, celsius: float) -> None:
        super().__init__(device)
        self.has_thermometer = True
        self.celsius = celsius
        self._thermal = thermal
        self._seen = (device.now(), device.energy_j())
        self._throttled_s = 0.0

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch, throttled if the device is too hot; returns its seconds."""
        self._pass()
        start_s, start_j = self.now(), self.energy_j() + self.falling_j
        took_s = self.device.execute(workload, step)
        if self.celsius >= self._thermal.throttle_c:
            drawn_j = self.energy_j() + self.falling_j - start_j
            waits_s = self._skipped_s(self.now() - start_s, drawn_j)
            self.device.idle(waits_s)
            self._throttled_s += waits_s
            took_s += waits_s
        self._pass()
        return took_s

    def excess_c(self, limit_c: float = math.inf) -> float:
        """By how many degrees it is hotter than it may be."""
        self._pass()
        return self.celsius - min(limit_c, self._thermal.throttle_c)

    def watch_throttling(self) -> Callable[[], str]:
        """Begin to watch for heat that slows the device down."""
        before_s = self._throttled_s
        return lambda: "heat" if self._throttled_s > before_s else ""

    def _pass(self) -> None:
        """Heat up or cool down by what was drawn since the last look."""
        (since_s, since_j), self._seen = self._seen, (self.now(), self.energy_j())
        if seconds := self._seen[0] - since_s:
            power_w = (self._seen[1] - since_j) / seconds
            self.celsius = self._thermal.after_c(self.celsius, power_w, seconds)

    def _skipped_s(self, seconds: float, energy_j: float) -> float:
        """Idle time that brings a minibatch's mean power down to what can be sustained."""
        idle_w = float(idle_power_w(self.board.hardware, *self.mode().values))
        above_w = max(energy_j / seconds - idle_w, 0.0)
        spare_w = max(self._thermal.sustained_w - idle_w, _LEAST_SPARE * above_w)
        return max(0.0, (above_w / spare_w - 1) * seconds) if above_w else 0.0
