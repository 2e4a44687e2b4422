"""The text by which somebody else can add a board to the catalogue, and nothing of its owner.

A report is TOML of plain values. It has what `powerctl.jetson.self_description` reads, and what was
missing; names of hosts and users, serial numbers, paths and times are never read for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from powerctl.axes import AXES, ModeAxes
from powerctl.daemon.remote import identity_by
from powerctl.doctor.access import look
from powerctl.doctor.report import through_daemon
from powerctl.errors import InvalidInput
from powerctl.fields import Count, Range, checked
from powerctl.jetson.discovery import discover
from powerctl.jetson.self_description import describe
from powerctl.jetson.sysfs import Sysfs
from powerctl.reading import read_toml
from powerctl.toml_writing import toml_text

_HEAD = """\
# What a Jetson says of itself, by powerctl doctor --report. Nothing of its owner is in it.
# powerctl board new FILE makes a board of it.

"""
_Text = Annotated[str, Range(0, 1000, printable=True)]
_Texts = Annotated[tuple[_Text, ...], Range(0, 100)]
_Axis = Annotated[tuple[Annotated[int, Range(1, 1e12)], ...], Range(0, 1000)]
_Limit = Annotated[int, Range(0, 1e12)]
_FIELDS: Mapping[str, Any] = {
    **{"name": _Text, "model": _Text, "l4t": _Text},
    **{"parts": _Texts, "compatible": _Texts, "total_power_rails": _Texts},
}
_LIMITS = ("id", *AXES)


def board_report(sysfs: Sysfs, board: str | None = None) -> str:
    """The report of a board, as text; nothing is changed.

    Raises
    ------
    InvalidInput
        If nothing says which board it is.
    """
    access = look(sysfs)
    identity = identity_by(access.seen or {}, sysfs, board)
    found = through_daemon(discover(sysfs, identity), access)
    axes = (found.cores, found.cpu_khz, found.gpu_hz, found.mem_hz)
    missing = [f"{item.what}: {item.remedy}" for item in found.missing]
    return _HEAD + toml_text({**describe(sysfs, identity, axes), "missing": missing})


def read_board_report(path: str) -> dict[str, Any]:
    """What a board says of itself in a report's file, each field held to what it must be.

    Raises
    ------
    InvalidInput
        If it is no report, or an axis was not seen; the message names the field.
    """
    data = read_toml(path)
    said = {key: checked(f"{path}: {key}", data.get(key), kind) for key, kind in _FIELDS.items()}
    axes = checked(f"{path}: axes", data.get("axes"), Mapping[str, Any])
    seen = {axis: checked(f"{path}: {axis}", axes.get(axis), _Axis) for axis in AXES}
    if unseen := [axis for axis in AXES if not seen[axis]]:
        raise InvalidInput(
            f"{path}: the report lacks {', '.join(unseen)}: write it as root, or with the daemon"
        )
    ModeAxes(*seen.values(), name=said["name"])
    tables = {
        key: checked(f"{path}: {key}", data.get(key, []), tuple[Mapping[str, Any], ...])
        for key in ("preset", "rail")
    }
    return {
        **{key: list(v) if isinstance(v, tuple) else v for key, v in said.items()},
        "axes": {axis: list(values) for axis, values in seen.items()},
        "preset": [_preset(f"{path}: preset", entry) for entry in tables["preset"]],
        "rail": [_rail(f"{path}: rail", entry) for entry in tables["rail"]],
    }


def _preset(where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"name": checked(f"{where} name", entry.get("name"), _Text)}
    for key in _LIMITS:
        if key in entry:
            said[key] = checked(f"{where} {key}", entry[key], _Limit)
    return said | ({"default": True} if entry.get("default") is True else {})


def _rail(where: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": checked(f"{where} label", entry.get("label"), _Text),
        "address": checked(f"{where} address", entry.get("address", ""), _Text),
        "channel": checked(f"{where} channel", entry.get("channel", 0), Count),
    }
