"""The Device protocol, and how a device is opened by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from powerctl.boards import Board, load_board
from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import ModeSpace, PowerMode
from powerctl.plugins import Kind
from powerctl.workload import Workload


class Device(Protocol):
    """A board that runs minibatches in power modes.

    On a Jetson the clock is the real one. On the twin and on a table it is virtual: a minibatch
    runs its step (so that a simulated client really learns) and then advances the clock and the
    energy counter by what it costs in the mode. The same code drives all of them.
    """

    board: Board
    space: ModeSpace
    power_period_s: float
    """Seconds between two readings of the power sensor: over less, `energy_j` says nothing."""

    def apply(self, mode: PowerMode) -> None:
        """Set a mode, verified; raises `ModeNotInForce` if the device did not take it."""

    def mode(self) -> PowerMode:
        """The mode in force."""
        ...

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch; returns its seconds on this device."""
        ...

    def idle(self, seconds: float) -> None:
        """Wait, at idle power."""

    def now(self) -> float:
        """Seconds on the device's clock: real, or virtual."""
        ...

    def energy_j(self) -> float:
        """Joules of the module since the device was opened."""
        ...

    def restore(self) -> None:
        """Return to the mode found at opening."""


COOL = -math.inf
"""The excess of a device without a thermometer."""


def excess_c(device: Device, limit_c: float = math.inf) -> float:
    """By how many degrees a device is hotter than it may be; `COOL` without a thermometer.

    Parameters
    ----------
    device : Device
    limit_c : float
        A limit below the device's own throttling points.
    """
    measure: Callable[[float], float] | None = getattr(device, "excess_c", None)
    return COOL if measure is None else measure(limit_c)


def has_thermometer(device: Device) -> bool:
    """Whether a device can be found too hot."""
    return hasattr(device, "excess_c")


def is_virtual(device: Device) -> bool:
    """Whether a device's clock is virtual: the board that it stands for is not there."""
    return bool(getattr(device, "is_virtual", False))


def falling_j(device: Device) -> float:
    """Joules beyond idle that a device still takes as its power falls; 0 where that is not known.

    Power lags the load by a second or so. What is not drawn yet when the work ends belongs to it:
    without it, a second of work would seem to cost half of what it does.
    """
    return float(getattr(device, "falling_j", 0.0))


def module_of(device: Device) -> Device:
    """The device whose energy is that of all that runs on the board.

    Itself, unless it is the share of one that others use too; that has it as `module`.
    """
    module: Device = getattr(device, "module", device)
    return module


DEVICES = Kind[Device](
    "device",
    "powerctl.devices",
    dict.fromkeys(("jetson", "jetson:DIR", "twin:BOARD", "table:FILE.csv", "host:BOARD")),
    Device,
)


def open_device(
    spec: str,
    *,
    board: str = "orin-agx",
    unit: int = 0,
    random_state: int = 0,
    total: str = "module",
) -> Device:
    """Open a device by its specification.

    Parameters
    ----------
    spec : str
        ``"jetson"`` for the board that this runs on (``"jetson:DIR"`` for a fake one in a folder),
        ``"twin:BOARD[@L4T]"`` for a simulated board, ``"table:FILE.csv"`` to replay measurements,
        ``"host:BOARD"`` for this machine in the name of a board; or a device of others, whose
        parameters of the names below are what is given here.
    board : str
        For a table, the board that it was measured on.
    unit, random_state : int
        For a twin: which piece of silicon it is, and the seed of its noise.
    total : {"module", "jtop", "jtop-service"}
        For a Jetson: what its power is; see `powerctl.devices.jetson.Jetson`.

    Raises
    ------
    DeviceUnavailable, UnknownName, InvalidTable, InvalidInput
        If there is no such device here, board, or table; or another's cannot be loaded.
    """
    kind, _, name = spec.partition(":")
    if total != "module" and kind != "jetson":
        raise InvalidInput(f"--total {total} is for a Jetson, and {spec} is none")
    if kind == "twin" and name:
        from powerctl.devices.twin import Twin

        return Twin(load_board(name), unit=unit, random_state=random_state)
    if kind == "table" and name:
        from powerctl.devices.table import TableDevice
        from powerctl.measurement import MeasurementTable

        measured_on = load_board(board)
        return TableDevice(measured_on, MeasurementTable.read(name, measured_on.space))
    if kind == "host" and name:
        from powerctl.devices.host import HostDevice
        from powerctl.meters import open_meter

        return HostDevice(load_board(name), open_meter("cpu"))
    if kind == "jetson":
        from powerctl.devices.jetson import Jetson

        return Jetson(Path(name or "/"), total=total, unit=unit, random_state=random_state)
    if kind in ("twin", "table", "host"):
        raise UnknownName("device", spec, DEVICES.names())
    return DEVICES.make(spec, board=board, unit=unit, random_state=random_state)
