"""How a device is opened by name: a Jetson, a twin, a table, this host, or a device of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from powerctl.boards import load_board
from powerctl.device import Device, MinimalDevice, NoTraits
from powerctl.devices.roots import is_fake
from powerctl.errors import InvalidInput, UnknownName
from powerctl.plugins import Kind

if TYPE_CHECKING:
    from numpy.random import Generator

DEVICES = Kind[MinimalDevice](
    "device",
    "powerctl.devices",
    dict.fromkeys(
        (
            *("jetson", "jetson:DIR", "recorded:FILE"),
            *("twin:BOARD", "table:FILE.csv", "host:BOARD"),
        )
    ),
    MinimalDevice,
)


def open_device(
    spec: str,
    *,
    board: str | None = None,
    unit: int = 0,
    random_state: int = 0,
    noise: Generator | None = None,
    total: str = "module",
) -> Device:
    """Open a device by its specification.

    Parameters
    ----------
    spec : str
        ``"jetson"`` for the board that this runs on (``"jetson:DIR"`` for a fake one in a folder),
        ``"recorded:FILE"`` for one that was recorded, to look at,
        ``"twin:BOARD[@L4T]"`` for a simulated board, ``"table:FILE.csv"`` to replay measurements,
        ``"host:BOARD"`` for this machine in the name of a board; or a device of others, whose
        parameters of the names below are what is given here.
    board : str, optional
        For a table, the board that it was measured on, by default orin-agx. For a Jetson which it
        is, where neither its device tree nor the daemon says it.
    unit, random_state : int
        For a twin, or a fake board: which piece of silicon it is, and the seed of its noise.
    noise : Generator, optional
        For a twin: its noise, in place of one from `random_state`, for who opens many.
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

        seeded = random_state if noise is None else noise
        return Twin(load_board(name), unit=unit, random_state=seeded)
    if kind == "table" and name:
        from powerctl.devices.table import TableDevice
        from powerctl.measurement import MeasurementTable

        measured_on = load_board(board or "orin-agx")
        return TableDevice(measured_on, MeasurementTable.read(name, measured_on.space))
    if kind == "host" and name:
        from powerctl.devices.host import HostDevice
        from powerctl.devices.meters import open_meter

        return HostDevice(load_board(name), open_meter("cpu"))
    if kind == "jetson":
        return _open_jetson(Path(name or "/"), total, board, unit, random_state)
    if kind == "recorded" and name:
        from powerctl.devices.recorded import RecordedJetson

        return RecordedJetson(Path(name), named=board)
    if kind in ("twin", "table", "host", "recorded"):
        raise UnknownName("device", spec, DEVICES.names())
    made = DEVICES.make(spec, board=board or "orin-agx", unit=unit, random_state=random_state)
    return _completed(made)


def _open_jetson(root: Path, total: str, named: str | None, unit: int, random_state: int) -> Device:
    if is_fake(root):
        from powerctl.devices.fake_jetson import FakeJetson

        return FakeJetson(root, unit=unit, random_state=random_state, total=total, named=named)
    from powerctl.devices.jetson import Jetson

    return Jetson(root, total=total, named=named)


def _completed(made: MinimalDevice) -> Device:
    """A device of others, with those optional traits that its class does not have by itself."""
    if not isinstance(made, Device):
        lacking = NoTraits()
        traits = {name: getattr(lacking, name) for name in dir(NoTraits) if name[0] != "_"}
        traits["has_thermometer"] = hasattr(made, "excess_c")
        for name, trait in {**traits, "module": made, "modes": list(made.space)}.items():
            if not hasattr(made, name):
                setattr(made, name, trait)
    return cast(Device, made)
