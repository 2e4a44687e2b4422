"""Whose files are below a root: a Jetson's, or a fake board's; others need not know of fakes."""

from __future__ import annotations

from pathlib import Path

from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.sysfs import Sysfs


def is_fake(root: Path) -> bool:
    """Whether a root is the folder of a fake board."""
    return (root / FAKE_MARKER).exists()


def open_sysfs(root: Path = Path("/")) -> Sysfs:
    """The kernel's files of a Jetson; of a fake board if the root is one; or of a recording."""
    if root.is_file():
        from powerctl.jetson.recording import RecordedSysfs  # which few need

        return RecordedSysfs(root)
    if is_fake(root):
        from powerctl.fakes.fake_sysfs import FakeSysfs  # its kernel loads NumPy

        return FakeSysfs(root)
    return Sysfs(root)
