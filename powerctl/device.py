"""What a device is: a board that runs minibatches in power modes, on a real or a virtual clock."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from powerctl.boards import Board
from powerctl.errors import InvalidInput
from powerctl.modes import ModeSpace, PowerMode
from powerctl.workload import Workload

COOL = -math.inf
"""The excess of a device without a thermometer."""


class MinimalDevice(Protocol):
    """What a device of others must have; a subclass of `Device` has the rest by itself.

    On a Jetson the clock is the real one. On the twin and on a table it is virtual: a minibatch
    runs its step (so that a simulated client really learns) and then advances the clock and the
    energy counter by what it costs in the mode. The same code drives all of them.
    """

    board: Board
    power_period_s: float
    """Seconds between two readings of the power sensor; over less, `energy_j` says nothing."""

    @property
    def space(self) -> ModeSpace:
        """The modes that can be applied."""
        ...

    @abstractmethod
    def apply(self, mode: PowerMode) -> None:
        """Set a mode, verified; raises `ModeNotInForce` if the device did not take it."""

    @abstractmethod
    def mode(self) -> PowerMode:
        """Which mode is in force now."""

    @abstractmethod
    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch; returns its seconds on this device."""

    @abstractmethod
    def idle(self, seconds: float) -> None:
        """Let time pass at idle power."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on the device's clock: real, or virtual."""

    @abstractmethod
    def energy_j(self) -> float:
        """Joules of the module since the device was opened."""

    @abstractmethod
    def restore(self) -> None:
        """Return to the mode found at opening."""


class NoTraits:
    """The optional traits of a device, each saying that the device lacks it.

    Attributes
    ----------
    is_virtual : bool
        Whether the clock is virtual: the board that it stands for is not there.
    energy_source : str
        What its energy rests on.
    measures_power : bool
        Whether its power can be learned from its energy; not where that is an estimate, as the
        board has no monitor.
    has_thermometer : bool
        Whether it can be found too hot.
    keeps_found : bool
        Whether what was found is on disc, and brought back after a kill.
    """

    is_virtual: bool = False
    energy_source: str = "the device's own sensor"
    measures_power: bool = True
    has_thermometer: bool = False
    keeps_found: bool = False

    @property
    def falling_j(self) -> float:
        """Joules beyond idle that are still taken as power falls; 0 where that is not known.

        Power lags the load by a second or so. What is not drawn yet when the work ends belongs to
        it: without it, a second of work would seem to cost half of what it does.
        """
        return 0.0

    @property
    def is_untouched(self) -> bool:
        """Whether it is known that no mode has been applied since opening, or restoring."""
        return False

    def excess_c(self, limit_c: float = math.inf) -> float:
        """By how many degrees it is hotter than it may be; `COOL` without a thermometer.

        Parameters
        ----------
        limit_c : float
            A limit below the device's own throttling points.
        """
        return COOL

    def watch_throttling(self) -> Callable[[], str]:
        """Begin to watch for heat and over-current that keep the device from its clocks.

        Returns
        -------
        callable
            Says in words what has slowed it down since, or does so now; empty if nothing.
        """
        return lambda: ""

    def bring_back(self) -> bool:
        """Restore what a killed process has left changed; whether there was any."""
        return False

    def close(self) -> None:
        """Let go of what the device holds; a second time does nothing."""


class Device(NoTraits, MinimalDevice):
    """A device with all its traits; a subclass overrides those that it has.

    Parameters
    ----------
    board : Board
        What it is, or stands for.
    space : ModeSpace
        The modes that can be applied.
    """

    power_period_s: float = 1.0  # PowerTrain reads the power of a Jetson once a second, by jtop

    def __init__(self, board: Board, space: ModeSpace) -> None:
        self.board = board
        self._space = space

    @property
    def space(self) -> ModeSpace:
        """The modes that can be applied."""
        return self._space

    @property
    def modes(self) -> Sequence[PowerMode]:
        """The modes in which it can run; all of its space, unless it knows only some of them."""
        return list(self.space)

    @property
    def module(self) -> Device:
        """The device whose energy is that of all that runs on the board.

        Itself, unless it is the share of one that others use too.
        """
        return self


class DeviceWrapper(Device):
    """Another device, all of it: a subclass overrides what it changes.

    Parameters
    ----------
    device : Device
        The one that everything is asked of.
    """

    def __init__(self, device: Device) -> None:
        super().__init__(device.board, device.space)
        self.device = device
        self.power_period_s = device.power_period_s
        self.is_virtual = device.is_virtual
        self.energy_source = device.energy_source
        self.measures_power = device.measures_power
        self.has_thermometer = device.has_thermometer
        self.keeps_found = device.keeps_found

    @property
    def modes(self) -> Sequence[PowerMode]:
        """The modes in which the wrapped device can run."""
        return self.device.modes

    @property
    def falling_j(self) -> float:
        """Joules beyond idle that the wrapped device still takes as its power falls."""
        return self.device.falling_j

    @property
    def is_untouched(self) -> bool:
        """Whether the wrapped device knows that no mode has been applied to it."""
        return self.device.is_untouched

    def apply(self, mode: PowerMode) -> None:
        """Set a mode of the wrapped device."""
        self.device.apply(mode)

    def mode(self) -> PowerMode:
        """Which mode is in force on the wrapped device."""
        return self.device.mode()

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch on the wrapped device; returns its seconds."""
        return self.device.execute(workload, step)

    def idle(self, seconds: float) -> None:
        """Let time pass on the wrapped device."""
        self.device.idle(seconds)

    def now(self) -> float:
        """Seconds on the wrapped device's clock."""
        return self.device.now()

    def energy_j(self) -> float:
        """Joules since the wrapped device was opened."""
        return self.device.energy_j()

    def restore(self) -> None:
        """Return the wrapped device to the mode found at opening."""
        self.device.restore()

    def excess_c(self, limit_c: float = math.inf) -> float:
        """By how many degrees the wrapped device is hotter than it may be."""
        return self.device.excess_c(limit_c)

    def watch_throttling(self) -> Callable[[], str]:
        """Begin to watch what slows the wrapped device down."""
        return self.device.watch_throttling()

    def bring_back(self) -> bool:
        """Restore what a killed process has left changed on the wrapped device."""
        return self.device.bring_back()

    def close(self) -> None:
        """Let go of what the wrapped device holds."""
        self.device.close()


def check_wait(seconds: float) -> None:
    """Raise `InvalidInput` for a time that no device can wait: a negative one, or NaN."""
    if not seconds >= 0:
        raise InvalidInput(f"cannot idle for {seconds} s")
