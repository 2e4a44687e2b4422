"""The installed presets of nvpmodel on the axes of a board: what each means, and what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.axes import ModeAxes
from powerctl.jetson.discovery import Discovery
from powerctl.jetson.nvpmodel import Configuration, running_preset
from powerctl.jetson.sysfs import Sysfs


@dataclass(frozen=True)
class PresetReport:
    """A preset of nvpmodel: the mode it stands for, where that is rounded, and what it needs.

    Attributes
    ----------
    id, name
        As nvpmodel has them.
    is_running : bool
        Whether nvpmodel set it last.
    mode : str or None
        The mode; None where the axes are not known.
    rounded : tuple of str
        Where the board runs at another clock than the preset says.
    reboot : str or None
        Why a switch to it needs a reboot; None if it does not.
    """

    id: int
    name: str
    is_running: bool
    mode: str | None
    rounded: tuple[str, ...]
    reboot: str | None


def describe(
    configuration: Configuration, found: Discovery, sysfs: Sysfs
) -> tuple[PresetReport, ...]:
    """Every preset, in the file's order."""
    axes = None
    if found.cpu_khz and found.gpu_hz and found.mem_hz:
        axes = ModeAxes(found.cores, found.cpu_khz, found.gpu_hz, found.mem_hz)
    masks = found.gpu.masks(sysfs) if found.gpu else {}
    running = running_preset(sysfs)
    return tuple(
        PresetReport(
            id=preset.id,
            name=preset.name,
            is_running=preset.id == running,
            mode=str(preset.mode(axes)) if axes else None,
            rounded=tuple(preset.rounding(axes)) if axes else (),
            reboot=preset.needs_reboot(masks),
        )
        for preset in configuration.presets
    )
