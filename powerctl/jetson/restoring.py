"""Putting a board back as it was found, whatever state it is in now."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from powerctl.errors import ModeNotInForce
from powerctl.jetson.journal import Journal
from powerctl.jetson.limits import Limits
from powerctl.jetson.memory import find_memory
from powerctl.jetson.sysfs import Sysfs

_PASSES = 3
_PAUSE_S = 0.1
_CORE = re.compile(r"/cpu\d+/online$")


def restore(sysfs: Sysfs, journal: Journal) -> dict[str, str]:
    """Bring back all that the journal holds, verify it, and only then drop the journal.

    A write that fails does not keep the others from being made; all is tried three times.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    journal : Journal
        What was found.

    Returns
    -------
    dict of str to str
        The files that had been changed, and what they hold again.

    Raises
    ------
    ModeNotInForce
        If something cannot be brought back; the journal is kept.
    """
    found = dict(journal.found)
    changed = _differing(sysfs, found)
    is_done = not changed and not _hidden(sysfs, found)
    failures: list[str] = []
    for attempt in range(_PASSES):
        if not is_done:
            time.sleep(_PAUSE_S if attempt > 1 else 0)  # what is busy is so for a moment
            failures = _Pass(sysfs, found).run()
            is_done = not failures and not _differing(sysfs, found)
    if is_done:
        journal.close()
        return changed
    amiss = [f"/{path} (was {value})" for path, value in _differing(sysfs, found).items()]
    raise ModeNotInForce(
        f"not all is as it was found: {', '.join(amiss) or 'all files read right'}; "
        f"{'; '.join(failures) or 'no write failed'}; try again: sudo powerctl restore"
    )


def _differing(sysfs: Sysfs, found: Mapping[str, str]) -> dict[str, str]:
    """The files that are there and do not hold what they held."""
    floating = _floating(sysfs, found)
    return {
        path: value
        for path, value in found.items()
        if path != floating and sysfs.exists(path) and sysfs.read_if(path) != value
    }


def _floating(sysfs: Sysfs, found: Mapping[str, str]) -> str | None:
    """The file of the memory's rate, if that floated: what it held then means nothing."""
    memory = find_memory(sysfs)
    if memory is None or memory.request != memory.rate or found.get(memory.hold) == "1":
        return None
    return memory.request


def _pairs(found: Mapping[str, str]) -> list[Limits]:
    """The clocks of which limits were noted."""
    lows = [path for path in found if path.endswith("min_freq")]
    return [Limits(low, low.removesuffix("min_freq") + "max_freq") for low in lows]


def _hidden(sysfs: Sysfs, found: Mapping[str, str]) -> bool:
    """Whether limits were noted whose files are not there now: the cores, or the GPU, are off."""
    return any(not sysfs.exists(limits.low) for limits in _pairs(found))


class _Pass:
    """One attempt at everything: what sleeps is woken, limits, memory, then back to sleep."""

    def __init__(self, sysfs: Sysfs, found: Mapping[str, str]) -> None:
        self._sysfs = sysfs
        self._found = found
        self._failures: list[str] = []

    def run(self) -> list[str]:
        """Make the attempt; gives what failed."""
        switches = [path for path in self._found if _CORE.search(path)]
        power = [p for p in self._found if p.endswith(("/power/control", "/railgate_enable"))]
        everything_on = _hidden(self._sysfs, self._found)
        for path in switches:
            if everything_on or self._found[path] == "1":
                self._put(path, "1")
        for path in power:
            self._put(path, "on" if path.endswith("control") else "0")
        for limits in _pairs(self._found):
            self._put_limits(limits)
        self._put_memory()
        for path in (*reversed(power), *reversed(switches)):
            self._put(path, self._found[path])
        return self._failures

    def _put(self, path: str, value: str) -> None:
        try:
            if self._sysfs.read(path) != value:
                self._sysfs.write(path, value)
        except OSError as error:
            self._failures.append(f"/{path}: {error.strerror or error}")

    def _put_limits(self, limits: Limits) -> None:
        try:
            wanted = (int(self._found[limits.low]), int(self._found[limits.high]))
            limits.write(self._sysfs, *wanted)
            if limits.read(self._sysfs) != wanted:
                self._failures.append(f"/{limits.low}: not taken")
        except OSError as error:
            self._failures.append(f"/{limits.low}: {error.strerror or error}")

    def _put_memory(self) -> None:
        memory = find_memory(self._sysfs)
        if memory is None or memory.hold not in self._found:
            return
        was_held = self._found[memory.hold] == "1"
        if was_held:
            self._put(memory.hold, "1")
        if was_held or memory.request != memory.rate:
            self._put(memory.request, self._found[memory.request])
        for path in (memory.enable, memory.hold, memory.cap):
            if path is not None and path in self._found:
                self._put(path, self._found[path])
