"""Controlling a board through the daemon, or by this process where there is none."""

from __future__ import annotations

from pathlib import Path

from powerctl.jetson.controller import Controller, OwnController
from powerctl.jetson.sysfs import Sysfs


def open_controller(sysfs: Sysfs, socket: Path | None = None) -> Controller:
    """What sets a board's modes: the daemon if it is there, else this process."""
    return OwnController(sysfs)
