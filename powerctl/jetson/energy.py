"""Energy from power readings: trapezoids over their time stamps, sampled by a thread or by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from powerctl.axes import PowerMode
from powerctl.errors import DeviceUnavailable
from powerctl.jetson.plausible import PowerCheck
from powerctl.workload import Workload

_SILENCE_S = 5.0
_FIRST_TRIES_S = (0.01, 0.1)  # its three channels are fresh every 7 ms


class EnergyIntegral:
    """Joules since it was made, as the integral of a power sensor's readings.

    Parameters
    ----------
    power_w : callable
        Reads the sensor; an `OSError` for one that does not answer is bridged by the next reading.
    clock : callable
        Seconds; the device's clock.
    check : PowerCheck, optional
        Holds readings against what can be.

    Raises
    ------
    DeviceUnavailable
        If the sensor does not answer at all.
    """

    def __init__(
        self,
        power_w: Callable[[], float],
        clock: Callable[[], float],
        check: PowerCheck | None = None,
    ) -> None:
        self._power_w = power_w
        self._clock = clock
        self._check = check or PowerCheck("a sensor")
        self._lock = threading.Lock()
        self._energy_j = 0.0
        self._last = (clock(), self._first())

    def _first(self) -> float:
        """The first reading; a sensor that is busy gets a few tries."""
        for wait_s in _FIRST_TRIES_S:
            with suppress(OSError):
                return self._power_w()
            time.sleep(wait_s)
        try:
            return self._power_w()
        except OSError as error:
            raise DeviceUnavailable(f"the power sensor does not answer: {error}") from None

    def enter(self, mode: PowerMode) -> None:
        """Note that another mode is in force: readings that do not change from now on are none."""
        self._check.load_changed()

    def running(self, workload: Workload) -> AbstractContextManager[None]:
        """What runs while the block does is measured as it is."""
        return nullcontext()

    def sample(self) -> float:
        """Take a reading now; gives its watts."""
        with self._lock:
            return self._sample()[1]

    def energy_j(self) -> float:
        """Joules from when it was made up to now.

        Raises
        ------
        DeviceUnavailable
            If the sensor has not answered for five seconds.
        """
        with self._lock:
            try:
                self._sample()
            except OSError as error:
                if self._clock() - self._last[0] > _SILENCE_S:
                    raise DeviceUnavailable(f"the power sensor does not answer: {error}") from None
            return self._energy_j

    def _sample(self) -> tuple[float, float]:
        before_s, before_w = self._last
        power_w = self._power_w()
        now = (self._clock(), power_w)  # stamped when it was there
        self._energy_j += (now[0] - before_s) * (now[1] + before_w) / 2
        self._last = now
        self._check.look(*now)
        return now


class PowerSampler:
    """A thread that samples an integral, and never takes more than a share of one core for it.

    Parameters
    ----------
    integral : EnergyIntegral
        What it samples.
    period_s : float
        Seconds between readings; a monitor's three channels are fresh every 7 ms.
    max_share : float
        Of one core's time; where a reading takes longer, the period becomes longer.
    """

    def __init__(
        self, integral: EnergyIntegral, period_s: float = 0.02, max_share: float = 0.02
    ) -> None:
        self._integral = integral
        self._period_s = period_s
        self._max_share = max_share
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the last sample stands."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = self._period_s
        while not self._stop.wait(wait_s):
            began_s = time.thread_time()
            with suppress(OSError):  # busy: the next reading bridges the gap
                self._integral.sample()
            cost_s = time.thread_time() - began_s
            wait_s = max(self._period_s, cost_s / self._max_share)
