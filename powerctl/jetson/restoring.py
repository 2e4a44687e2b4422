"""Putting a board back as it was found, whatever state it is in now."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping

from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce
from powerctl.jetson.gpu import find_gpu, railgate
from powerctl.jetson.journal import Journal, Lock
from powerctl.jetson.memory_clock import find_memory
from powerctl.jetson.nvpmodel import CONFIGURATION, read_configuration, running_preset, switch
from powerctl.jetson.sysfs import ClockLimits, Sysfs

_PASSES = 3
_PAUSE_S = 0.1
log = logging.getLogger("powerctl.jetson")

_CORE = re.compile(r"/cpu\d+/online$")


def restore_found(sysfs: Sysfs, journal: Journal) -> None:
    """Bring back all that the journal holds, verify it, and only then drop the journal.

    A write that fails does not keep the others from being made; all is tried three times. Of a
    damaged journal what can be read is brought back as far as it goes; then it is kept aside.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    journal : Journal
        What was found.

    Raises
    ------
    ModeNotInForce
        If something cannot be brought back; the journal is kept.
    """
    amiss = _bring_back(sysfs, dict(journal.found))
    if journal.damage:
        if amiss:
            log.error("%s", amiss)
        journal.mend()
    elif amiss:
        raise ModeNotInForce(f"{amiss}; try again: sudo powerctl restore")
    else:
        journal.close()


def _bring_back(sysfs: Sysfs, found: Mapping[str, str]) -> str:
    """Bring back what was found; gives in words what is not as it was, empty if all is."""
    is_done = not _differing(sysfs, found) and not _hidden(sysfs, found)
    failures: list[str] = []
    for attempt in range(_PASSES):
        if not is_done:
            time.sleep(_PAUSE_S if attempt > 1 else 0)  # what is busy is so for a moment
            failures = _Pass(sysfs, found).run()
            is_done = not failures and not _differing(sysfs, found)
    if is_done:
        return ""
    amiss = [f"/{path} (was {value})" for path, value in _differing(sysfs, found).items()]
    return (
        f"not all is as it was found: {', '.join(amiss) or 'all files read right'}; "
        f"{'; '.join(failures) or 'no write failed'}"
    )


def restore_left(sysfs: Sysfs) -> None:
    """Restore what a killed controller left; raises `ModeNotInForce` if more may be changed."""
    lock = Lock(sysfs)
    try:
        journal = Journal(sysfs)
        restore_found(sysfs, journal)
        journal.check()
    finally:
        lock.release()


def set_as_booted(sysfs: Sysfs) -> str:
    """Set what a boot sets, where nobody knows any more what was found; gives the preset's name.

    That is nvpmodel's preset, the one it set last; the memory's rate floats, and the GPU may sleep.

    Raises
    ------
    DeviceUnavailable
        If another controls the board, this process may not, or nvpmodel is not installed.
    ModeNotInForce
        If it is not taken; then more stays noted as changed.
    """
    lock = Lock(sysfs)
    try:
        journal, configuration = Journal(sysfs), read_configuration(sysfs)
        journal.mend()
        preset = running_preset(sysfs)
        if configuration is not None and preset is None:
            preset = configuration.default
        if configuration is None or preset is None:
            raise DeviceUnavailable(
                f"/{CONFIGURATION} names no preset that a boot sets; restart the board"
            )
        memory, gpu, gate = find_memory(sysfs), find_gpu(sysfs), railgate(sysfs)
        floating = {memory.hold: "0"} if memory else {}
        asleep = {path: "auto" for path in [gpu.power_control] if sysfs.exists(path)} if gpu else {}
        asleep |= {gate: "1"} if gate else {}
        chosen = configuration.preset(str(preset))
        _put_all(sysfs, floating)
        switch(sysfs, configuration, chosen)
        _put_all(sysfs, asleep)
        journal.close(knows_all=True)
        return chosen.name
    finally:
        lock.release()


def _put_all(sysfs: Sysfs, values: Mapping[str, str]) -> None:
    """Write what files are to hold, and read it back."""
    for path, value in values.items():
        try:
            if sysfs.read(path) != value:
                sysfs.write(path, value)
            amiss = sysfs.read(path) != value and f"it holds {sysfs.read(path)}"
        except OSError as error:
            amiss = str(error.strerror or error)
        if amiss:
            raise ModeNotInForce(f"/{path} cannot be set to {value}: {amiss}")


def still_changed(sysfs: Sysfs) -> dict[str, str]:
    """The files that do not hold what was noted of them, and what that is."""
    return _differing(sysfs, Journal(sysfs).found)


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


def _pairs(found: Mapping[str, str]) -> list[ClockLimits]:
    """The clocks of which limits were noted; of a damaged journal it may be one of the two."""
    ends = ("min_freq", "max_freq")
    stems = dict.fromkeys(path[: -len(ends[0])] for path in found if path.endswith(ends))
    return [ClockLimits(stem + ends[0], stem + ends[1]) for stem in stems]


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
        """Try to bring everything back once; gives what failed, in words."""
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
        except (OSError, InvalidInput) as error:
            self._failures.append(f"/{path}: {getattr(error, 'strerror', None) or error}")

    def _put_limits(self, limits: ClockLimits) -> None:
        try:
            low, high = limits.read(self._sysfs)
            wanted = int(self._found.get(limits.low, low)), int(self._found.get(limits.high, high))
            limits.write(self._sysfs, *wanted)
            if limits.read(self._sysfs) != wanted:
                self._failures.append(f"/{limits.low}: not taken")
        except (OSError, ValueError) as error:
            self._failures.append(f"/{limits.low}: {getattr(error, 'strerror', None) or error}")

    def _put_memory(self) -> None:
        memory = find_memory(self._sysfs)
        if memory is None:
            return
        was_held = self._found.get(memory.hold) == "1"
        if was_held:
            self._put(memory.hold, "1")
        if memory.request in self._found and (was_held or memory.request != memory.rate):
            self._put(memory.request, self._found[memory.request])
        for path in (memory.enable, memory.hold, memory.cap):
            if path is not None and path in self._found:
                self._put(path, self._found[path])
