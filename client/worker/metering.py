"""Time, energy and power of a plan's execution, minibatch by minibatch."""

from __future__ import annotations

import math

from powerctl.device import Device
from powerctl.fulcrum.guard import Guard
from powerctl.modes import PowerMode

SETTLED_S = 3.0  # power has settled this long after a change (PowerTrain, section 3)
POWER_WINDOW_S = 1.0  # the rate at which jtop and tegrastats sample the module's power


class RunMeter:
    """Reads a device since the meter was made.

    Time and energy are the training's own; power is the module's, which in an agent holds the
    inference beside it.

    Parameters
    ----------
    device : Device
        What trains.

    Attributes
    ----------
    time_s : float
        Seconds on the device's clock, when it was last read.
    energy_j : float
        Joules of the training then, with those that are drawn as power falls after it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._module = device.module
        self._start_s, self._start_j = 0.0, 0.0
        self.read()
        self._start_s, self._start_j = self.time_s, self.energy_j
        self._module_start_j = self._module.energy_j()
        self._busy_s = 0.0
        self._peak_w = 0.0
        self.start_segment()

    def read(self) -> None:
        """Read the device's clock and its energy counter."""
        self.time_s = self._device.now() - self._start_s
        drawn_j = self._device.energy_j() + self._module.falling_j
        self.energy_j = drawn_j - self._start_j

    def start_segment(self) -> None:
        """Start the windows anew: a mode has just been applied."""
        self.read()
        self._segment_s = self.time_s
        self._window = (self.time_s, self._module.energy_j())
        self._settled: tuple[float, float] | None = None

    def tick(self, took_s: float) -> None:
        """A minibatch has ended."""
        self._busy_s += took_s
        self.read()
        if self._settled is None and self.time_s - self._segment_s >= SETTLED_S:
            self._settled = (self._busy_s, self.energy_j)
        if self.time_s - self._window[0] >= POWER_WINDOW_S:
            now = (self.time_s, self._module.energy_j())
            self._peak_w = max(self._peak_w, _mean_power_w(self._window, now))
            self._window = now

    def look(self, guard: Guard) -> PowerMode | None:
        """Let a guard look at the module, if it is time to; the mode that it steps down to."""
        time_s = self._device.now()
        if not guard.is_due(time_s):
            return None
        hot_c = self._module.excess_c(guard.limits.celsius)
        lower = guard.observe(time_s, self._module.energy_j(), hot_c)
        if not math.isnan(guard.mean_w):
            self._peak_w = max(self._peak_w, guard.mean_w)
        return lower

    def settled_power_w(self) -> float:
        """Mean power of the segment's minibatches since it settled; NaN if that is too short."""
        now = (self._busy_s, self.energy_j)
        if self._settled is None or now[0] - self._settled[0] < POWER_WINDOW_S:
            return math.nan
        return _mean_power_w(self._settled, now)

    def peak_power_w(self) -> float:
        """The highest mean over a window; over all the time if that was shorter than one."""
        if not self._peak_w and self.time_s > 0:
            return (self._module.energy_j() - self._module_start_j) / self.time_s
        return self._peak_w


def _mean_power_w(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])
