"""Where minibatches run, and what time and energy they take: really, or on a fake by the twin."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from powerctl.accelerator import synchronise
from powerctl.boards import Board
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput
from powerctl.jetson.energy import EnergyIntegral, Sampler
from powerctl.jetson.fake import FakeSysfs
from powerctl.workload import Workload


class Running(Protocol):
    """Runs minibatches on a clock and a meter."""

    def execute(self, workload: Workload, step: Callable[[], None] | None) -> float:
        """Run one minibatch; returns its seconds."""
        ...

    def idle(self, seconds: float) -> None:
        """Wait."""

    def settle(self) -> None:
        """The clocks have changed."""

    def now(self) -> float:
        """Seconds since it was made."""
        ...

    def energy_j(self) -> float:
        """Joules since it was made."""
        ...

    def close(self) -> None:
        """Stop metering."""


class RealRunning:
    """Runs steps in real time, and integrates the power that is read meanwhile.

    Parameters
    ----------
    power_w : callable
        Reads the module's power.
    """

    def __init__(self, power_w: Callable[[], float]) -> None:
        self._start_s = time.monotonic()
        self._integral = EnergyIntegral(power_w, self.now)
        self._sampler = Sampler(self._integral)

    def execute(self, workload: Workload, step: Callable[[], None] | None) -> float:
        """Run the step to its end on the GPU; returns the seconds."""
        if step is None:
            raise InvalidInput(
                f"a Jetson runs real minibatches of {workload.name}; say what runs one: "
                "--task my_task.py"
            )
        began_s = self.now()
        step()
        synchronise()
        return self.now() - began_s

    def idle(self, seconds: float) -> None:
        """Wait."""
        if not seconds >= 0:
            raise InvalidInput(f"cannot idle for {seconds} s")
        time.sleep(seconds)

    def settle(self) -> None:
        """Nothing: real power follows by itself."""

    def now(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._start_s

    def energy_j(self) -> float:
        """Joules since it was made; what was launched on the GPU before is waited for."""
        synchronise()
        return self._integral.energy_j()

    def close(self) -> None:
        """End the sampling thread."""
        self._sampler.close()


class TwinRunning:
    """Runs steps on a fake board: the twin says what a minibatch costs in the mode in force.

    The mode is the fake kernel's, throttling included. The twin's power is put on the fake rails
    and read back from there, by the same integral as on a Jetson; time is virtual.

    Parameters
    ----------
    sysfs : FakeSysfs
        The fake board.
    board : Board
        Its entry of the catalogue, with its own axes.
    power_w : callable
        Reads the module's power from the rails.
    unit, random_state : int
        Which piece of silicon, and the seed of its noise.
    """

    def __init__(
        self,
        sysfs: FakeSysfs,
        board: Board,
        power_w: Callable[[], float],
        *,
        unit: int = 0,
        random_state: int = 0,
    ) -> None:
        self._sysfs = sysfs
        self._twin = Twin(board, unit=unit, random_state=random_state)
        self._now_s = self._charged_j = 0.0
        self._integral = EnergyIntegral(power_w, self.now)
        self.settle()

    def execute(self, workload: Workload, step: Callable[[], None] | None) -> float:
        """Run the step, then charge what the minibatch costs; returns its virtual seconds."""
        self.settle()
        seconds = self._twin.execute(workload, step)
        self._account()
        return seconds

    def idle(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.settle()
        self._twin.idle(seconds)
        self._account()

    def settle(self) -> None:
        """Let the twin run in the mode that the kernel has now."""
        self._twin.apply(self._twin.space.nearest(self._sysfs.mode()))
        self._account()

    def now(self) -> float:
        """Virtual seconds since it was made."""
        return self._now_s

    def energy_j(self) -> float:
        """Joules since it was made, as the rails showed them."""
        return self._integral.energy_j()

    def close(self) -> None:
        """Nothing is held."""

    def _account(self) -> None:
        """Show the mean power since the last time on the rails, and integrate it."""
        seconds = self._twin.now() - self._now_s
        if seconds <= 0:
            return
        energy_j = self._twin.energy_j()
        self._sysfs.set_power((energy_j - self._charged_j) / seconds)
        self._charged_j = energy_j
        self._sample()
        self._now_s += seconds
        self._sample()

    def _sample(self) -> None:
        with suppress(OSError):  # as the sampler of a Jetson: the next reading bridges the gap
            self._integral.sample()
