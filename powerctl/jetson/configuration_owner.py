"""Whose presets are installed: nvpmodel takes any board's file, and its masks with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from powerctl.errors import DeviceUnavailable
from powerctl.jetson.cpu import Cpu
from powerctl.jetson.identity import catalogue_name, identify
from powerctl.jetson.sysfs import Sysfs

_CORE = re.compile(r"/cpu(\d+)/online$")
_PART_OF_FILE = re.compile(r"p(\d{4})_(\d{4})")  # nvpmodel_p3701_0000.conf


def not_of_this_board(sysfs: Sysfs, path: str, arguments: Mapping[tuple[str, str], str]) -> str:
    """Why a configuration must be another board's, in words; empty if nothing says so.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    path : str
        Of the configuration; NVIDIA's files have the module's part number in their name, which a
        link shows.
    arguments : mapping
        The file that each argument of each parameter is written to: cores that the board lacks, or
        others than it has, give another board away.
    """
    own = identify(sysfs).name
    parts = [f"p{a}-{b}" for a, b in _PART_OF_FILE.findall(os.path.basename(sysfs.resolve(path)))]
    other = catalogue_name(parts)
    if own and other and other != own:
        return f"/{sysfs.resolve(path)} is of {other}, and this board is {own}"
    try:
        present = set(Cpu(sysfs).present()) - {0}
    except (OSError, ValueError, DeviceUnavailable):
        return ""
    switched = {int(match[1]) for p in arguments.values() if (match := _CORE.search(p))} - {0}
    if not switched or switched == present:
        return ""
    return (
        f"/{path} is of another board: it switches cores to {max(switched)}, and this board has "
        f"them to {max(present, default=0)}"
    )
