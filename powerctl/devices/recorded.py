"""A recorded board as a device: all that can be looked at, and nothing that can be done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from powerctl.devices.jetson import Jetson
from powerctl.jetson.clocks import Clocks
from powerctl.jetson.controller import Controller
from powerctl.jetson.discovery import discover
from powerctl.jetson.identity import identify
from powerctl.jetson.journal import Journal
from powerctl.jetson.recording import RecordedSysfs, read_only
from powerctl.jetson.sysfs import Sysfs
from powerctl.modes import PowerMode
from powerctl.workload import Workload


class RecordedController:
    """Knows a recorded board's axes and the mode that it was in; refuses to set others.

    Parameters
    ----------
    sysfs : Sysfs
        The recorded files.
    board : str, optional
        Which board it is, if the recording does not say it.

    Raises
    ------
    DeviceUnavailable
        If clocks are missing in it.
    """

    def __init__(self, sysfs: Sysfs, board: str | None = None) -> None:
        self.identity = identify(sysfs, board)
        found = discover(sysfs, self.identity)
        self.axes = found.axes()
        self._clocks = Clocks(sysfs, found, Journal(sysfs))

    def apply(self, mode: PowerMode) -> NoReturn:
        """Refuse to set any mode on a recording."""
        raise read_only()

    def mode(self) -> PowerMode:
        """The mode that the limits stood for."""
        return self._clocks.mode(self.axes)

    def verify(self) -> None:
        """Do nothing: nothing was applied, so nothing can be amiss."""

    def restore(self) -> None:
        """Leave all as it is: nothing was changed."""

    close = restore


class RecordedJetson(Jetson):
    """A board as ``powerctl doctor --record`` wrote it, to look at where there is none.

    Parameters
    ----------
    file : Path
        The recording.
    named : str, optional
        Which board it is, if the recording does not say it.
    """

    _files = RecordedSysfs

    def __init__(self, file: Path, *, named: str | None = None) -> None:
        super().__init__(file, named=named)

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> NoReturn:
        """Refuse to run anything: there is no board."""
        raise read_only()

    def _control(self, socket: Path | None, named: str | None) -> Controller:
        return RecordedController(self.sysfs, named)

    def bring_back(self) -> bool:
        """Whether something was restored: nothing ever is."""
        return False
