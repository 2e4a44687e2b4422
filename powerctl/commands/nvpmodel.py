"""`powerctl nvpmodel`: NVIDIA's presets on this board, and a switch that needs no reboot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.doctor import root_option
from powerctl.commands.options import json_option
from powerctl.errors import DeviceUnavailable

if TYPE_CHECKING:
    from powerctl.jetson.nvpmodel import PresetReport

_EXAMPLES = """\b
Examples:
    powerctl nvpmodel
    sudo powerctl nvpmodel MODE_30W
"""


@click.command(epilog=_EXAMPLES)
@click.argument("preset", required=False)
@root_option
@json_option
def nvpmodel(preset: str | None, root: Path, as_json: bool) -> None:
    """List the presets that are installed, or switch to PRESET (its name or number).

    Each is shown as the mode that it stands for, with the clocks that the board rounds. A switch
    that needs a reboot is refused, and one while modes are held. It stays after this command.
    """
    from powerctl.devices.roots import open_sysfs
    from powerctl.jetson.control import Control
    from powerctl.jetson.discovery import discover
    from powerctl.jetson.nvpmodel import CONFIGURATION, describe_presets, read_configuration, switch

    sysfs = open_sysfs(root)
    configuration = read_configuration(sysfs)
    if configuration is None:
        raise DeviceUnavailable(f"/{CONFIGURATION} is not there: nvpmodel is not installed here")
    found = discover(sysfs)
    if preset is not None:
        wanted, control = configuration.preset(preset), Control(sysfs)
        control.take()
        try:
            switch(sysfs, wanted, found.gpu.masks(sysfs) if found.gpu else {})
        finally:
            control.give_back()
    reports = describe_presets(configuration, found, sysfs)
    if as_json:
        console.print_json([asdict(report) for report in reports])
    else:
        show_presets(reports)


def show_presets(presets: Sequence[PresetReport]) -> None:
    """Print presets as a table."""
    rows = []
    for preset in presets:
        notes = [*preset.rounded, *([f"reboot: {preset.reboot}"] if preset.reboot else [])]
        running = "running" if preset.is_running else ""
        rows.append([f"{preset.id} {preset.name}", preset.mode or "", running, "; ".join(notes)])
    console.print_table(("nvpmodel preset", "mode", "", "notes"), rows)
