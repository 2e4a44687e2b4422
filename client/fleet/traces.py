"""Availability traces of real devices: the formats of FedScale and of FLASH.

FedScale (ICML 2022): a pickled dict, client -> ``{"active": [...], "inactive": [...],
"finish_time": ..., "duration": ..., "model": ...}``; seconds at which the client becomes active and
inactive, in turn; after `finish_time` it begins again.

FLASH (Yang et al., WWW 2021): a JSON object, device -> ``{"messages": "...", ...}``; a line a
message, a time stamp, a tab and an event. As in its own code, a device is available while it is
locked (or its screen is off), charging and on Wi-Fi; after the last message it begins again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fields import Range, build
from powerctl.modes import BoolArray, FloatArray, IntArray
from powerctl.reading import DATA, misread, parse_json, parse_pickle, quoted, read_bytes

_Time = Annotated[float, Range(-1e12, 1e12)]
_FLASH_EVENTS = {
    "screen_off": ("screen off", True),
    "screen_on": ("screen off", False),
    "screen_lock": ("locked", True),
    "screen_unlock": ("locked", False),
    "battery_charged_on": ("charging", True),
    "battery_charged_off": ("charging", False),
    "wifi": ("wifi", True),
    **dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), ("wifi", False)),
}
Interval = tuple[float, float]


@dataclass(frozen=True)
class _FedScale:
    """What is read of a client of FedScale's."""

    finish_time: Annotated[float, Range(1, 1e12)]
    active: tuple[_Time, ...]
    inactive: tuple[_Time, ...]


@dataclass(frozen=True, eq=False)
class Traces:
    """Times at which devices are there, each repeated for ever.

    Attributes
    ----------
    start_s, end_s : FloatArray, shape (k,)
        Intervals of all traces, those of one trace together and rising.
    owner : IntArray, shape (k,)
        Trace of each interval, rising.
    period_s : FloatArray, shape (n,)
        After which each trace begins again.
    """

    start_s: FloatArray
    end_s: FloatArray
    owner: IntArray
    period_s: FloatArray

    def __len__(self) -> int:
        return len(self.period_s)

    @classmethod
    def of(cls, intervals: Sequence[Sequence[Interval]], period_s: Sequence[float]) -> Traces:
        """Traces from lists of rising, separate intervals within their periods."""
        flat = np.array([i for trace in intervals for i in trace], dtype=np.float64).reshape(-1, 2)
        lengths = [len(trace) for trace in intervals]
        return cls(
            start_s=flat[:, 0],
            end_s=flat[:, 1],
            owner=np.repeat(np.arange(len(intervals)), lengths),
            period_s=np.array(period_s, dtype=np.float64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Traces]) -> Traces:
        """All traces of some parts, numbered on."""
        first = np.cumsum([0, *(len(part) for part in parts)])
        return cls(
            start_s=np.concatenate([part.start_s for part in parts]),
            end_s=np.concatenate([part.end_s for part in parts]),
            owner=np.concatenate([p.owner + f for p, f in zip(parts, first, strict=False)]),
            period_s=np.concatenate([part.period_s for part in parts]),
        )

    def at(self, trace: IntArray, clock_s: float) -> tuple[BoolArray, FloatArray]:
        """Whether some traces' devices are there, and at what time that changes."""
        if not len(self.start_s):
            return np.zeros(len(trace), dtype=bool), np.full(len(trace), np.inf)
        period_s = self.period_s[trace]
        time_s = clock_s % period_s
        spread = 2 * float(self.period_s.max())  # keeps the traces apart on one axis
        first = np.searchsorted(self.owner, trace)
        after = np.searchsorted(self.owner, trace, side="right")
        axis = self.start_s + spread * self.owner
        began = np.searchsorted(axis, time_s + spread * trace, side="right") - 1
        began -= (began >= first) & (self.start_s[began] > time_s)  # equal when rounded
        last = np.maximum(began, 0)
        here = (began >= first) & (began < after) & (time_s < self.end_s[last])
        following = np.minimum(began + 1, len(self.start_s) - 1)
        again_s = period_s + self.start_s[np.minimum(first, len(self.start_s) - 1)]
        starts_s = np.where(began + 1 < after, self.start_s[following], again_s)
        change_s = np.where(here, self.end_s[last], starts_s)
        change_s = np.where(first == after, np.inf, change_s)
        return here, clock_s + (change_s - time_s)


NO_TRACES = Traces.of([], [])


@lru_cache(maxsize=4)
def read_traces(path: Path) -> Traces:
    """The traces of a file: FedScale's ``.pkl`` or FLASH's ``.json``, in the file's order.

    Raises
    ------
    InvalidInput
        Naming the file and the device, if it is not such a file, or if a pickle would do anything
        but make containers.
    """
    content = read_bytes(path, DATA)
    with misread(f"{path}: no trace of FedScale or FLASH"):
        if path.suffix == ".json":
            traces = [_flash(device) for device in parse_json(content, "its text").values()]
        else:
            traces, left = [], len(content)
            for client, trace in parse_pickle(content, "its content").items():
                traces.append(_fedscale(client, trace, left))
                left -= len(traces[-1][0])
    if not traces:
        raise InvalidInput(f"{path}: no traces in it")
    return Traces.of([intervals for intervals, _ in traces], [period for _, period in traces])


def _fedscale(client: Any, trace: Any, most: int) -> tuple[list[Interval], float]:
    """The intervals of a client, of which a file without tricks has fewer than bytes."""
    where = f"client {quoted(client)}"
    found = build(_FedScale, trace, where, ignored=None)
    if len(found.active) > most:
        raise InvalidInput(f"{where}: more times than the file has bytes")
    period_s = float(found.finish_time)
    pairs = zip(found.active, found.inactive, strict=True)
    intervals = [(float(a), min(float(b), period_s)) for a, b in pairs if a < min(b, period_s)]
    rising = [time_s for interval in intervals for time_s in interval]
    if rising != sorted(rising) or (rising and rising[0] < 0):
        raise InvalidInput(f"{where}: active and inactive must rise in turn")
    return intervals, period_s


def _flash(device: Mapping[str, Any]) -> tuple[list[Interval], float]:
    """Intervals from the first message on; what is not known yet counts as not so."""
    state = dict.fromkeys(("screen off", "locked", "charging", "wifi"), False)
    lines = filter(str.strip, device["messages"].splitlines())
    stamped = sorted(map(_stamped, lines), key=lambda message: message[0])
    if not stamped:
        return [], 1.0
    first_s, last_s = stamped[0][0], stamped[-1][0]
    intervals: list[Interval] = []
    since_s, here = 0.0, False
    for time_s, event in stamped:
        if event in _FLASH_EVENTS:  # others, such as "85.0%", change nothing
            what, so = _FLASH_EVENTS[event]
            state[what] = so
        now_here = (state["locked"] or state["screen off"]) and state["charging"] and state["wifi"]
        if now_here and not here:
            since_s = time_s - first_s
        elif here and not now_here and time_s - first_s > since_s:
            intervals.append((since_s, time_s - first_s))
        here = now_here
    if here and last_s - first_s > since_s:
        intervals.append((since_s, last_s - first_s))
    return intervals, max(last_s - first_s, 1.0)


def _stamped(line: str) -> tuple[float, str]:
    """Time and event of a message."""
    stamp, event = line.strip().split("\t")
    moment = datetime.strptime(stamp.strip(), "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
    return moment.timestamp(), event.strip().lower()
