"""A pair of files that hold the lowest and the highest clock, written in the order that is safe."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.jetson.sysfs import Sysfs


@dataclass(frozen=True)
class Limits:
    """The two limits of one clock: of a CPU cluster in kHz, or of the GPU in Hz."""

    low: str
    high: str

    @property
    def files(self) -> tuple[str, str]:
        """Both paths."""
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
