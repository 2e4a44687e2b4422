"""One mode, measured: minibatches run in it until time and power are known well enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powerctl.device import Device
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInSpace
from powerctl.fields import Amount, Positive, Size
from powerctl.measurement import Measurement
from powerctl.modes import PowerMode
from powerctl.profiler.procedure import (
    Procedure,
    half_width,
    mean_and_spread,
    settled_from,
    warm_up,
)
from powerctl.workload import Workload

Step = Callable[[], None]


@dataclass(frozen=True)
class ProfiledMode:
    """What was measured of one mode and batch size.

    Attributes
    ----------
    time_s, time_std : float
        Mean and standard deviation of a minibatch's seconds, warm-up left out.
    n_minibatches : int
        How many that is over.
    power_w, power_std : float
        Mean power of the settled windows (their energy over their time), and the standard
        deviation from window to window.
    n_windows : int
        How many settled windows.
    warmup : int
        Leading minibatches dropped.
    seconds : float
        Time on the device's clock that this took, the change of mode included.
    precise : bool
        Whether the precision asked for was reached before the limits.
    """

    mode: PowerMode
    batch_size: Size
    time_s: Positive
    time_std: Amount
    n_minibatches: Size
    power_w: Positive
    power_std: Amount
    n_windows: Size
    warmup: Size
    seconds: Amount
    precise: bool

    @property
    def measurement(self) -> Measurement:
        """The measured fact, as tables hold it."""
        return Measurement(self.mode, self.time_s, self.power_w, self.batch_size)


def measure_mode(
    device: Device,
    workload: Workload,
    mode: PowerMode,
    procedure: Procedure,
    step: Step | None = None,
) -> ProfiledMode:
    """Measure one minibatch of a workload in one mode; leaves the device in that mode.

    Parameters
    ----------
    device : Device
        What runs it.
    workload : Workload
        What runs, with its batch size.
    mode : PowerMode
        Applied first.
    procedure : Procedure
        When to stop.
    step : callable, optional
        Runs one minibatch, for devices that really run.

    Raises
    ------
    DeviceUnavailable
        If its power is only estimated.
    ModeNotInSpace, ModeNotInForce
        If the device cannot be set to the mode, or a table does not hold it.
    """
    if not device.measures_power:
        raise DeviceUnavailable(
            f"power cannot be measured here, only time ({device.energy_source}); measure on a "
            "board with a monitor, and use its table or predictor here"
        )
    started = device.now()
    try:
        device.apply(mode)
        trace = _Trace(device)
        while True:
            trace.run(workload, step)
            seconds = device.now() - started
            is_last = len(trace.times_s) > 1 and seconds >= procedure.max_seconds
            if is_last or trace.is_due(procedure):
                seen = trace.summary(workload, mode, procedure, seconds)
                if is_last or seen.precise or seen.n_minibatches >= procedure.max_minibatches:
                    return seen
    except ModeNotInSpace as error:
        raise ModeNotInSpace(f"cannot profile {workload.name} in {mode}: {error}") from None


class _Trace:
    """The minibatches of one mode so far, and its power, window by window.

    A window closes at the first end of a minibatch at which the sensor has had a new reading; its
    power is the energy counted in it over its time.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.times_s: list[float] = []
        self.first: list[int] = []
        """Number of each window's first minibatch."""
        self.window_s: list[float] = []
        self.power_w: list[float] = []
        self._opened = (0, 0.0, 0.0)
        self._looked_at = (0, 0)

    def run(self, workload: Workload, step: Step | None) -> None:
        """Run one minibatch, and close the window if the sensor has had time for a reading."""
        self.times_s.append(self.device.execute(workload, step))
        if len(self.times_s) == 1:  # kernels are selected in it: not this mode's power
            self._open()
        elif self.device.now() - self._opened[1] >= self.device.power_period_s:
            self._close()

    def is_due(self, procedure: Procedure) -> bool:
        """Whether there may be enough, and enough has come since the last look.

        Between two readings of power only time can become more precise, and slowly: the next look
        is at the next reading, or after 5 % more minibatches.
        """
        n, windows = len(self.times_s) - 1, len(self.power_w)
        if n < procedure.max_minibatches:
            seen_n, seen_windows = self._looked_at
            if n < procedure.min_minibatches or windows < procedure.min_power_windows:
                return False
            if windows == seen_windows and n < 1.05 * seen_n:
                return False
        self._looked_at = (n, windows)
        return True

    def _open(self) -> None:
        self._opened = (len(self.times_s), self.device.now(), self.device.energy_j())

    def _close(self) -> None:
        first, since_s, since_j = self._opened
        elapsed_s = self.device.now() - since_s
        self.first.append(first)
        self.window_s.append(elapsed_s)
        energy_j = self.device.energy_j() - since_j
        self.power_w.append(energy_j / elapsed_s if elapsed_s > 0 else math.nan)
        self._open()

    def summary(
        self, workload: Workload, mode: PowerMode, procedure: Procedure, seconds: float
    ) -> ProfiledMode:
        """What the minibatches so far say, and whether that is precise enough."""
        if not self.power_w:  # stopped within the first window: better short than none
            self._close()
        times = np.array(self.times_s)
        warmup = warm_up(times)
        clean = times[warmup:]
        # The trace of a mode that never warmed up has no clean window: then its last one stands.
        from_window = min(int(np.searchsorted(self.first, warmup)), len(self.first) - 1)
        power = np.array(self.power_w[from_window:])
        settled = settled_from(power, procedure)
        start = len(power) // 2 if settled is None else settled
        power, window_s = power[start:], np.array(self.window_s[from_window + start :])
        time_s, time_std = mean_and_spread(clean, np.ones(len(clean)))
        power_w, power_std = mean_and_spread(power, window_s)
        if not (time_s > 0 and 0 < power_w < math.inf):
            raise InvalidInput(
                f"{mode}: the device counted {time_s:g} s and {power_w:g} W over "
                f"{len(clean)} minibatches; check its clock and its power sensor"
            )
        precise = (
            settled is not None
            and len(clean) >= procedure.min_minibatches
            and half_width(time_std, len(clean)) <= procedure.time_error * time_s
            and half_width(power_std, len(power)) <= procedure.power_error * power_w
        )
        return ProfiledMode(
            mode=mode,
            batch_size=workload.batch_size,
            time_s=time_s,
            time_std=time_std,
            n_minibatches=len(clean),
            power_w=power_w,
            power_std=power_std,
            n_windows=len(power),
            warmup=warmup,
            seconds=seconds,
            precise=precise,
        )
