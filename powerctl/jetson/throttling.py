"""What keeps a board from its clocks: heat, over-current, and alarms of the power monitor."""

from __future__ import annotations

import re
from dataclasses import dataclass

from powerctl.jetson.heat import measures
from powerctl.jetson.sysfs import Sysfs

_COUNTER = re.compile(r"/oc\d+_(event_cnt|irq_cnt)$")
_COOLS_BY_SLOWING = re.compile(r"(?i)^(?!.*fan)")


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
    """

    events: dict[str, int]
    cooling: dict[str, int]
    celsius: dict[str, float]
    alarms: tuple[str, ...]

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
        return ", ".join([*said, *(f"{alarm} alarm" for alarm in self.alarms)])

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
        if kind and state is not None and _COOLS_BY_SLOWING.match(kind):
            cooling[kind] = max(state, cooling.get(kind, 0))
    celsius: dict[str, float] = {}
    for folder in sysfs.find("sys/class/thermal/thermal_zone*"):
        kind, milli = sysfs.read_if(f"{folder}/type"), sysfs.int_if(f"{folder}/temp")
        if kind and measures(kind) and milli is not None:
            celsius[kind] = milli / 1000
    return Throttling(events, cooling, celsius, _alarms(sysfs))


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
