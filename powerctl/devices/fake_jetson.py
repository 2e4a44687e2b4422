"""A fake Jetson: its modes are set as a Jetson's, what minibatches cost in them the twin says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from powerctl.devices.estimated import EstimatedEnergy
from powerctl.devices.jetson import Jetson
from powerctl.devices.twin import Twin
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.jetson.energy import EnergyIntegral
from powerctl.workload import Workload


class FakeJetson(Jetson):
    """A fake board in a folder (``powerctl fake-board``), controlled as a Jetson is.

    Parameters
    ----------
    root : Path
        The folder.
    unit, random_state : int
        Which piece of silicon it is, and the seed of its noise.
    total, socket, named
        As of `Jetson`.
    """

    is_virtual = True
    _files = FakeSysfs
    sysfs: FakeSysfs

    def __init__(
        self,
        root: Path,
        *,
        unit: int = 0,
        random_state: int = 0,
        total: str = "module",
        socket: Path | None = None,
        named: str | None = None,
    ) -> None:
        self._unit, self._random_state = unit, random_state
        super().__init__(root, total=total, socket=socket, named=named)

    def idle(self, seconds: float) -> None:
        """Let virtual time pass, in the mode in force."""
        self._twin.idle(seconds)

    def now(self) -> float:
        """Virtual seconds since the device was opened."""
        return self._twin.now_s

    def energy_j(self) -> float:
        """Joules since the device was opened, as the rails showed them."""
        return self._integral.energy_j()

    def _start_metering(self) -> Callable[[], None]:
        twin = Twin(self.board, unit=self._unit, random_state=self._random_state)
        self._twin = _TwinOnRails(self.sysfs, twin, self._integral_over)
        self._integral = self._twin.integral
        return lambda: None

    def _run(self, workload: Workload, step: Callable[[], None] | None) -> float:
        return self._twin.execute(workload, step)

    def _settle(self) -> None:
        self._twin.settle()


class _TwinOnRails:
    """A twin in the mode of a fake kernel, throttling included, whose power its rails show.

    It is read back from there, by the same integral as on a Jetson; a fake board without rails has
    its energy from the cost model, as a Jetson without a monitor.

    Parameters
    ----------
    sysfs : FakeSysfs
        The fake board.
    twin : Twin
        Of its board.
    integral_over : callable
        Makes the integral of the module's power on a clock.
    """

    def __init__(
        self,
        sysfs: FakeSysfs,
        twin: Twin,
        integral_over: Callable[[Callable[[], float]], EnergyIntegral | EstimatedEnergy],
    ) -> None:
        self._sysfs = sysfs
        self._twin = twin
        self.now_s = self._charged_j = 0.0
        self.integral = integral_over(lambda: self.now_s)
        self.settle()

    def execute(self, workload: Workload, step: Callable[[], None] | None) -> float:
        """Run the step, then charge what the minibatch costs; returns its virtual seconds."""
        self.settle()
        seconds = self._twin.execute(workload, step)
        self._account()
        return seconds

    def idle(self, seconds: float) -> None:
        """Let virtual time pass at the twin's idle power."""
        self.settle()
        self._twin.idle(seconds)
        self._account()

    def settle(self) -> None:
        """Let the twin run in the mode that the kernel has now."""
        self._twin.apply(self._twin.space.nearest(self._sysfs.mode()))
        self._account()

    def _account(self) -> None:
        """Show the mean power since the last time on the rails, and integrate it."""
        seconds = self._twin.now() - self.now_s
        if seconds <= 0:
            return
        energy_j = self._twin.energy_j()
        self._sysfs.set_power((energy_j - self._charged_j) / seconds)
        self._charged_j = energy_j
        self._sample()
        self.now_s += seconds
        self._sample()

    def _sample(self) -> None:
        with suppress(OSError):  # as the sampler of a Jetson: the next reading bridges the gap
            self.integral.sample()
