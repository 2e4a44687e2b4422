"""A log of the profiler that lives as long as the test."""

from __future__ import annotations

from pathlib import Path

from powerctl.profiler import Procedure
from powerctl.profiler.profile_log import LogHeader, ProfileLog


class MemoryLog(ProfileLog):
    """A log without a file."""

    def __init__(self):
        super().__init__(Path("profile"), LogHeader("", "", "", "train", "", Procedure()))

    def append(self, entry):
        """Add a measurement, in memory alone."""
        self._entries.append(entry)
