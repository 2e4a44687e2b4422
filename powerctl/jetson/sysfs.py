"""The one way to the kernel's files: everything is read and written below a root.

Paths are written without the leading slash (``sys/devices/system/cpu/online``), so that the same
code serves a Jetson (root ``/``) and a fake board in a folder.
"""

from __future__ import annotations

import errno
import glob
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from powerctl.errors import DeviceUnavailable, InvalidInput

_MOST_BYTES = 4 << 20  # of a file; the largest that is read, of the clocks, has some 100 kB
_NEED_A_REBOOT = ("tpc_pg_mask", "fbp_pg_mask", "gpu_pg_mask")


class Sysfs:
    """Reads and writes the files below a root.

    Parameters
    ----------
    root : Path
        ``/`` on a Jetson.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._base = f"{self.root}/".replace("//", "/")

    def read(self, path: str) -> str:
        """The content of a file, without white space around it and the device tree's NULs.

        An `OSError` for one that cannot be read, or is without end; a pipe is empty.
        """
        content = bytearray()
        # a third of what open() takes
        file = os.open(self._base + path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while len(content) <= _MOST_BYTES and (part := os.read(file, 65536)):
                content += part
        finally:
            os.close(file)
        if len(content) > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"over {_MOST_BYTES >> 20} MiB", f"/{path}")
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

    def nvpmodel(self, preset: int) -> subprocess.CompletedProcess[str]:
        """Run NVIDIA's nvpmodel, without standard input: asked before a reboot, it says no."""
        if self.root != Path("/"):
            raise DeviceUnavailable(f"nvpmodel sets the clocks of this machine, not of {self.root}")
        command = ["nvpmodel", "-m", str(preset)]
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        except FileNotFoundError:
            raise DeviceUnavailable("there is no nvpmodel here") from None


@dataclass(frozen=True)
class ClockLimits:
    """The files of the lowest and highest clock allowed: of a CPU cluster in kHz, the GPU in Hz."""

    low: str
    high: str

    @property
    def files(self) -> tuple[str, str]:
        """The paths of both files, the lowest clock first."""
        return (self.low, self.high)

    def read(self, sysfs: Sysfs) -> tuple[int, int]:
        """Lowest and highest clock allowed."""
        return sysfs.read_int(self.low), sysfs.read_int(self.high)

    def write(self, sysfs: Sysfs, low: int, high: int) -> None:
        """Set both: upwards the highest first, downwards the lowest first.

        In that order no moment has them crossed: a kernel 4.9 refuses a crossed pair, and one
        from 5.10 on takes it in silence and clamps it. A limit that is there already is not
        written.
        """
        present = self.read(sysfs)
        wanted = [(self.low, low, present[0]), (self.high, high, present[1])]
        if high >= present[1]:
            wanted.reverse()
        for path, value, before in wanted:
            if value != before:
                sysfs.write(path, value)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of the kernel's notation: ``0-3,6`` is 0, 1, 2, 3 and 6."""
    numbers: list[int] = []
    for part in text.replace(" ", ",").split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)
