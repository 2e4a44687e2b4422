"""What a board says of itself, as plain values: who it is, its axes, its presets and its rails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from powerctl.axes import AXES
from powerctl.errors import InvalidInput
from powerctl.jetson.identity import Identity
from powerctl.jetson.nvpmodel import InstalledPreset, read_configuration
from powerctl.jetson.rails import RailSensor, find_rails, total_labels
from powerctl.jetson.sysfs import Sysfs

_PLACE = re.compile(r"/([0-9]+-[0-9a-f]{4})/.*/(?:in|in_power|power)([0-9]+)_input$")


def describe(sysfs: Sysfs, identity: Identity, axes: Sequence[Sequence[int]]) -> dict[str, Any]:
    """All that is needed to add a board to the catalogue, and that itself can tell.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    identity : Identity
        Which board it is.
    axes : sequence of sequence of int
        What can be set, in the order of `AXES`, as the kernel lists it; empty if it is not seen.
    """
    rails = find_rails(sysfs)
    return {
        "name": identity.called,
        "model": identity.model,
        "parts": list(identity.parts),
        "compatible": list(identity.compatible),
        "l4t": identity.release,
        "total_power_rails": list(total_labels(rails, "labels")) if rails else [],
        "axes": {name: list(axis) for name, axis in zip(AXES, axes, strict=True)},
        "preset": _presets(sysfs),
        "rail": [_rail(rail) for rail in rails],
    }


def _presets(sysfs: Sysfs) -> list[dict[str, Any]]:
    """Of the installed configuration; none where it is not there, or cannot be read."""
    try:
        configuration = read_configuration(sysfs)
    except InvalidInput:
        configuration = None
    if configuration is None:
        return []
    default = configuration.default
    return [_preset(preset, preset.id == default) for preset in configuration.presets]


def _preset(preset: InstalledPreset, is_default: bool) -> dict[str, Any]:
    limits = dict(zip(AXES, preset.limits(), strict=True))
    said: dict[str, Any] = {"id": preset.id, "name": preset.name}
    said |= {"default": True} if is_default else {}
    return said | {axis: limit for axis, limit in limits.items() if limit is not None}


def _rail(rail: RailSensor) -> dict[str, Any]:
    place = _PLACE.search(f"/{rail.files[0]}")
    where = {"address": place[1], "channel": int(place[2])} if place else {}
    return {"label": rail.label, **where}
