"""The one way to the kernel's files: everything is read and written below a root.

Paths are written without the leading slash (``sys/devices/system/cpu/online``), so that the same
code serves a Jetson (root ``/``) and a fake board in a folder.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from powerctl.errors import DeviceUnavailable, InvalidInput

_MOST_BYTES = 4 << 20  # of a file; the largest that is read, of the clocks, has some 100 kB
_NVPMODEL_S = 60
_SBIN = "/usr/sbin"  # where nvpmodel is, and cron or su do not look
_HIGHEST = 2**63  # the kernel's numbers have 64 bits
_CLOCK_DIGITS = 12  # of kHz or Hz
MASK_ENDING = "_pg_mask"
"""Ends the names of power-gating masks, a change of which needs a reboot."""


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

        An `OSError` that names it for one that cannot be read, or is without end; a pipe is empty.
        """
        content = bytearray()
        try:
            # a third of what open() takes
            file = os.open(self._base + path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                while len(content) <= _MOST_BYTES and (part := os.read(file, 65536)):
                    content += part
            finally:
                os.close(file)
        except OSError as error:  # of reading, it does not name the file
            raise type(error)(error.errno, error.strerror, f"/{path}") from None
        if len(content) > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"over {_MOST_BYTES >> 20} MiB", f"/{path}")
        return content.decode("utf-8", errors="replace").replace("\0", "\n").strip()

    def read_int(self, path: str) -> int:
        """The number in a file; an `OSError` where there is none, as for one that is not there."""
        text = self.read(path)
        try:
            number = int(text.split()[0], 0)
        except (ValueError, IndexError):
            number = _HIGHEST
        if abs(number) >= _HIGHEST:
            raise OSError(f"/{path} holds {text[:40]!r}, not a number")
        return number

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

    def clocks_if(self, path: str) -> tuple[int, ...]:
        """The clocks that a file lists, ascending; empty if it lists none or cannot be read.

        What is no number there is left out (units), as is what no clock of a Jetson can be.
        """
        words = (self.read_if(path) or "").split()
        numbers = {int(word) for word in words if word.isdecimal() and len(word) <= _CLOCK_DIGITS}
        return tuple(sorted(numbers - {0}))

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder, as far as may be seen."""
        return os.path.exists(self._base + path)

    def find(self, pattern: str) -> list[str]:
        """Paths that match a pattern, sorted."""
        return sorted(glob.glob(pattern, root_dir=self.root))

    def resolve(self, path: str) -> str:
        """The path with its symbolic links followed, so that one file has one name."""
        return os.path.relpath(os.path.realpath(self._base + path), self.root)

    def is_link(self, path: str) -> bool:
        """Whether it is a symbolic link, to whatever."""
        return os.path.islink(self._base + path)

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
        if path.endswith(MASK_ENDING):
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
        places = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
        command = [shutil.which("nvpmodel", path=places) or "nvpmodel", "-m", str(preset)]
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_NVPMODEL_S,
            )
        except FileNotFoundError:
            raise DeviceUnavailable("there is no nvpmodel here") from None
        except subprocess.TimeoutExpired:
            raise DeviceUnavailable(f"nvpmodel has not ended within {_NVPMODEL_S} s") from None
        except OSError as error:
            raise DeviceUnavailable(f"nvpmodel cannot be run: {error}") from None


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
    """CPU numbers of the kernel's notation: ``0-3,6`` is 0, 1, 2, 3 and 6.

    Raises
    ------
    OSError
        If it is no such list, as for a file that does not hold what it should.
    """
    numbers: list[int] = []
    for part in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            raise OSError(f"{text[:40]!r} is no list of CPUs such as 0-3,6")
        numbers.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(numbers)
