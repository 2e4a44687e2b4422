"""How hot a board is: its thermal zones, against the points at which it slows itself down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from powerctl.jetson.sysfs import Sysfs

MARGIN_C = 3.0
"""A guard acts so many degrees before the board does."""

_ZONES = "sys/class/thermal/thermal_zone*"
_SLOWS = ("passive", "hot", "critical")  # "active" turns the fan up
_DUMMY = "PMIC"


@dataclass(frozen=True)
class Zone:
    """A thermal zone.

    Attributes
    ----------
    name : str
        Such as ``CPU-therm``.
    file : str
        Holds its temperature in thousandths of a degree.
    trip_c : float
        Where the board begins to slow down or to stop; infinite where none is told.
    """

    name: str
    file: str
    trip_c: float


class Thermometer:
    """The zones of a board.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.

    Attributes
    ----------
    zones : tuple of Zone
        Those that measure something.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self.zones = tuple(
            Zone(name, f"{folder}/temp", _trip_c(sysfs, folder))
            for folder in sysfs.find(_ZONES)
            if (name := sysfs.read_if(f"{folder}/type")) and measures(name)
        )

    def excess_c(self, limit_c: float = math.inf) -> float:
        """By how many degrees the hottest zone is above what it may be; negative if below.

        A zone may be as hot as `limit_c`, and `MARGIN_C` below its trip point. One that does not
        answer (its part is switched off) is left out; minus infinity if none answers.
        """
        excess_c = -math.inf
        for zone in self.zones:
            milli = self._sysfs.int_if(zone.file)
            if milli is not None:
                may_c = min(limit_c, zone.trip_c - MARGIN_C)
                excess_c = max(excess_c, milli / 1000 - may_c)
        return excess_c


def measures(zone: str) -> bool:
    """Whether a zone's temperature is one: that of a name shows 100 degrees whatever happens."""
    return not zone.startswith(_DUMMY)


def _trip_c(sysfs: Sysfs, folder: str) -> float:
    """The lowest point at which the zone slows the board down, or stops it."""
    points = []
    for path in sysfs.find(f"{folder}/trip_point_*_type"):
        milli = sysfs.int_if(f"{path.removesuffix('_type')}_temp")
        if sysfs.read_if(path) in _SLOWS and milli is not None and milli > 0:
            points.append(milli / 1000)
    return min(points, default=math.inf)
