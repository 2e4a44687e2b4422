"""What keeps a board from its clocks: heat, over-current, and alarms of the power monitor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from powerctl.jetson.cpu import Cpu
from powerctl.jetson.sysfs import Sysfs

MARGIN_C = 3.0
"""A guard acts so many degrees before the board does."""

_SLOWS = ("passive", "hot", "critical")  # "active" turns the fan up


@dataclass(frozen=True)
class Zone:
    """A thermal zone that measures a temperature, and where that slows the board down.

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
    """The thermal zones of a board, against the points at which it slows itself down.

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
            for name, folder in _measuring_zones(sysfs)
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


def _measuring_zones(sysfs: Sysfs) -> Iterator[tuple[str, str]]:
    """Name and folder of each zone that measures: that of a PMIC always shows 100 degrees."""
    for folder in sysfs.find("sys/class/thermal/thermal_zone*"):
        name = sysfs.read_if(f"{folder}/type")
        if name and not name.startswith("PMIC"):
            yield name, folder


def _trip_c(sysfs: Sysfs, folder: str) -> float:
    """The lowest point at which the zone slows the board down, or stops it."""
    points, harmless = [], _harmless_points(sysfs, folder)
    for path in sysfs.find(f"{folder}/trip_point_*_type"):
        milli = sysfs.int_if(f"{path.removesuffix('_type')}_temp")
        kind, number = sysfs.read_if(path), path.rpartition("/")[2].split("_")[2]
        is_harmless = kind == "passive" and number in harmless
        if kind in _SLOWS and not is_harmless and milli is not None and milli > 0:
            points.append(milli / 1000)
    return min(points, default=math.inf)


def _harmless_points(sysfs: Sysfs, folder: str) -> set[str]:
    """Numbers of the trip points that turn something on, of which nothing slows a clock.

    An Orin has one at 70 degrees, from which on it warns that its surface is hot.
    """
    slows: dict[str, bool] = {}
    for path in sysfs.find(f"{folder}/cdev*_trip_point"):
        number, kind = (
            sysfs.read_if(path),
            sysfs.read_if(f"{path.removesuffix('_trip_point')}/type"),
        )
        if number:
            slows[number] = slows.get(number, False) or kind is None or _slows_a_clock(kind)
    return {number for number, does in slows.items() if not does}


_BELOW = 0.95  # of the lowest clock allowed: cycle counters over a short while err by less
_COUNTER = re.compile(r"/oc\d+_(event_cnt|irq_cnt)$")
# Cooling devices that slow no clock of these: fans, the warning of a hot surface, and radios.
_SLOWS_NO_CLOCK = re.compile(r"(?i)fan|hot-surface|wifi|^ath\d+k")


@dataclass(frozen=True)
class Throttling:
    """A snapshot; the difference of two says what happened between them.

    Attributes
    ----------
    events : dict of str to int
        Over-current events since boot, by counter (``oc3_event_cnt``).
    cooling : dict of str to int
        State of each cooling device that slows something down; above 0 it does so now.
    celsius : dict of str to float
        Temperatures, by thermal zone.
    alarms : tuple of str
        Channels of the power monitor whose current is above a limit.
    slowed : tuple of str
        Clocks of the CPU that run below the lowest that is allowed, which only the board's own
        protection makes them do. It may have begun before: at a boot, by an over-current.
    """

    events: dict[str, int]
    cooling: dict[str, int]
    celsius: dict[str, float]
    alarms: tuple[str, ...]
    slowed: tuple[str, ...] = ()

    def since(self, before: Throttling) -> str:
        """What has begun since a snapshot, in words; empty if nothing."""
        said = [
            f"over-current ({name} {before.events.get(name, 0)} -> {count})"
            for name, count in self.events.items()
            if count > before.events.get(name, 0)
        ]
        said += [
            f"{name} slows down (state {before.cooling.get(name, 0)} -> {state}{self._heat()})"
            for name, state in self.cooling.items()
            if state > before.cooling.get(name, 0)
        ]
        return ", ".join(said)

    def now(self) -> str:
        """What throttles at this moment, in words; empty if nothing."""
        said = [f"{name} slows down (state {n})" for name, n in self.cooling.items() if n > 0]
        return ", ".join([*said, *(f"{alarm} alarm" for alarm in self.alarms), *self.slowed])

    def counted(self) -> str:
        """Which over-current events there were since the board started; empty if none."""
        return ", ".join(
            f"over-current since boot ({name} {count})"
            for name, count in self.events.items()
            if count
        )

    def _heat(self) -> str:
        if not self.celsius:
            return ""
        name, hottest = max(self.celsius.items(), key=lambda zone: zone[1])
        return f", {name} at {hottest:.0f} degC"


def read_throttling(sysfs: Sysfs) -> Throttling:
    """Take a snapshot; what cannot be read is left out."""
    events: dict[str, int] = {}
    for folder in _hwmon_named(sysfs, "soctherm_oc"):
        for path in sysfs.find(f"{folder}/oc*_cnt"):
            count = sysfs.int_if(path)
            if _COUNTER.search(path) and count is not None:
                events[path.rpartition("/")[2]] = count
    cooling: dict[str, int] = {}
    for folder in sysfs.find("sys/class/thermal/cooling_device*"):
        kind, state = sysfs.read_if(f"{folder}/type"), sysfs.int_if(f"{folder}/cur_state")
        if kind and state is not None and _slows_a_clock(kind):
            cooling[kind] = max(state, cooling.get(kind, 0))
    celsius = {
        name: milli / 1000
        for name, folder in _measuring_zones(sysfs)
        if (milli := sysfs.int_if(f"{folder}/temp")) is not None
    }
    return Throttling(events, cooling, celsius, _alarms(sysfs), tuple(_slowed(sysfs)))


def _slows_a_clock(kind: str) -> bool:
    """Whether a cooling device of a type cools by slowing something down that modes set."""
    return not _SLOWS_NO_CLOCK.search(kind)


def _slowed(sysfs: Sysfs) -> Iterator[str]:
    """The CPU clocks that are measured below the lowest allowed; only root may look.

    One that is pinned is held against its mode under load, by `clocks.Verification`: idle, its
    counters may say less.
    """
    cpu = Cpu(sysfs)
    for policy in cpu.policies():
        khz, lowest = cpu.clock(policy), sysfs.int_if(policy.limits.low)
        is_pinned = lowest == sysfs.int_if(policy.limits.high)
        if khz and lowest and khz < _BELOW * lowest and not is_pinned:
            mhz, least = khz / 1e3, lowest / 1e3
            yield f"{policy.name} runs at {mhz:g} MHz, below its lowest of {least:g} MHz"


def _alarms(sysfs: Sysfs) -> tuple[str, ...]:
    raised = []
    for folder in sysfs.find("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"):
        for path in sysfs.find(f"{folder}/curr*_alarm"):
            if sysfs.int_if(path) == 1:
                name = path.rpartition("/")[2].removesuffix("_alarm")
                label = sysfs.read_if(f"{folder}/in{name[4]}_label") or "power monitor"
                raised.append(f"{label} {name[6:] or 'limit'}")
    return tuple(raised)


def _hwmon_named(sysfs: Sysfs, name: str) -> list[str]:
    folders = sysfs.find("sys/class/hwmon/hwmon*")
    return [folder for folder in folders if sysfs.read_if(f"{folder}/name") == name]
