"""The one way to the kernel's files: everything is read and written below a root.

Paths are written without the leading slash (``sys/devices/system/cpu/online``), so that the same
code serves a Jetson (root ``/``) and a fake board in a folder.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from powerctl.errors import InvalidInput

FAKE_MARKER = "fake-board.json"
"""A root that holds this file is a fake board: writes go through its kernel's rules."""

_NEED_A_REBOOT = ("tpc_pg_mask", "fbp_pg_mask")


class Sysfs:
    """Reads and writes the files below a root.

    Parameters
    ----------
    root : Path
        ``/`` on a Jetson.
    """

    is_fake = False

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._base = f"{self.root}/".replace("//", "/")

    @staticmethod
    def open(root: Path = Path("/")) -> Sysfs:
        """The files of a Jetson, or of a fake board if the root is one."""
        if (root / FAKE_MARKER).exists():
            from powerctl.jetson.fake import FakeSysfs

            return FakeSysfs(root)
        return Sysfs(root)

    def read(self, path: str) -> str:
        """The content of a file, without white space around it and the device tree's NULs."""
        content = b""
        file = os.open(self._base + path, os.O_RDONLY)  # a third of what open() takes
        try:
            while part := os.read(file, 65536):
                content += part
        finally:
            os.close(file)
        return content.decode("utf-8", errors="replace").replace("\0", "\n").strip()

    def read_int(self, path: str) -> int:
        """The number in a file; an `OSError` where there is none, as for one that is not there."""
        text = self.read(path)
        try:
            return int(text.split()[0], 0)
        except (ValueError, IndexError):
            raise OSError(f"/{path} holds {text[:40]!r}, not a number") from None

    def read_if(self, path: str) -> str | None:
        """The content of a file, None if it cannot be read."""
        try:
            return self.read(path)
        except OSError:
            return None

    def int_if(self, path: str) -> int | None:
        """The number in a file, None if there is none or it cannot be read."""
        try:
            return self.read_int(path)
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder, as far as may be seen."""
        return os.path.exists(self._base + path)

    def find(self, pattern: str) -> list[str]:
        """Paths that match a pattern, sorted."""
        return sorted(glob.glob(pattern, root_dir=self.root))

    def resolve(self, path: str) -> str:
        """The path with its symbolic links followed, so that one file has one name."""
        return os.path.relpath(os.path.realpath(self._base + path), self.root)

    def may_write(self, path: str) -> bool:
        """Whether this process may write a file."""
        return os.access(self._base + path, os.W_OK)

    def write(self, path: str, value: object) -> None:
        """Write a value; success proves nothing, read it back.

        Raises
        ------
        OSError
            What the kernel says.
        InvalidInput
            For power-gating masks: a change of those needs a reboot, and is never made here.
        """
        if path.rpartition("/")[2] in _NEED_A_REBOOT:
            raise InvalidInput(f"/{path} is not written: a change of power gating needs a reboot")
        self._write(path, str(value))

    def _write(self, path: str, text: str) -> None:
        file = os.open(self._base + path, os.O_WRONLY | os.O_TRUNC)  # never makes one
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of the kernel's notation: ``0-3,6`` is 0, 1, 2, 3 and 6."""
    numbers: list[int] = []
    for part in text.replace(" ", ",").split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)
