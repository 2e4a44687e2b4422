"""A power mode in force: every axis set in the order that is safe, read back, and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from powerctl.axes import ModeAxes, PowerMode
from powerctl.errors import DeviceUnavailable, ModeNotInForce
from powerctl.jetson.cpu import Cpu
from powerctl.jetson.discovery import Discovery
from powerctl.jetson.journal import Journal
from powerctl.jetson.nvpmodel import running_preset
from powerctl.jetson.sysfs import Sysfs
from powerctl.jetson.throttling import Throttling, read_throttling

_CPU_TOLERANCE = 0.05  # of cycle counters over a short while
_CLOCK_TOLERANCE = 0.01


class Clocks:
    """The four axes of a board, set together.

    Cores are the first ones (0 to n - 1), as in nvpmodel's presets. Clocks are pinned: lowest and
    highest allowed are the mode's. Every file is in the journal before it is written.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    found : Discovery
        What the board has; complete, nothing missing.
    journal : Journal
        Keeps the state found.
    """

    def __init__(self, sysfs: Sysfs, found: Discovery, journal: Journal) -> None:
        if found.gpu is None or found.memory is None:
            raise DeviceUnavailable("the clocks of GPU and memory were not found: powerctl doctor")
        self.sysfs = sysfs
        self.cpu = Cpu(sysfs)
        self.gpu = found.gpu
        self.memory = found.memory
        self._journal = journal

    def apply(self, mode: PowerMode) -> None:
        """Set every axis and read it back; what is in force already is not written.

        Cores come on before clocks are set and go off after: those that are off have no clock.

        Raises
        ------
        ModeNotInForce
            Naming the axis, and what the kernel said or holds instead.
        DeviceUnavailable
            If the state found cannot be noted; then nothing is written.
        """
        self._note(self._files)
        with _axis("cores"):
            online = set(self.cpu.online())
            for number in self.cpu.present()[: mode.cores]:
                if number not in online:
                    self.cpu.switch(number, on=True)
            self._note(self._cpu_files)  # of policies that came with the cores
        with _axis("cpu"):
            for policy in self.cpu.policies():
                policy.limits.write(self.sysfs, mode.cpu_khz, mode.cpu_khz)
        with _axis("gpu"):
            self.gpu.set(self.sysfs, mode.gpu_hz)
        with _axis("memory"):
            self.memory.set(self.sysfs, mode.mem_hz)
        with _axis("cores"):
            for number in reversed(self.cpu.present()[mode.cores :]):
                if number in online:
                    self.cpu.switch(number, on=False)
        self.check(mode)

    def check(self, mode: PowerMode) -> None:
        """Raise `ModeNotInForce` naming the first axis that is not as the mode says."""
        try:
            amiss = next(self._held(mode), None)
        except OSError as error:
            raise ModeNotInForce(f"mode {mode} cannot be read back: {error}") from None
        if amiss is not None:
            raise ModeNotInForce(f"{amiss[0]} of mode {mode} is not in force: {amiss[1]}")

    def mode(self, axes: ModeAxes) -> PowerMode:
        """The mode on some axes that the limits in force stand for: their highest clocks."""
        gpu_hz = self.sysfs.int_if(self.gpu.limits.high)  # asleep, it says nothing
        mem_hz = self.memory.ceiling(self.sysfs)
        try:
            limits = (len(self.cpu.online()), self.cpu.ceiling(), gpu_hz, mem_hz)
        except OSError as error:
            raise DeviceUnavailable(f"the mode in force cannot be read: {error}") from None
        return axes.capped(limits)

    def _held(self, mode: PowerMode) -> Iterator[tuple[str, str]]:
        """Axis by axis, what is held instead of the mode."""
        online, wanted = self.cpu.online(), self.cpu.present()[: mode.cores]
        if online != wanted:
            yield "cores", f"online are {_listed(online)}, not {_listed(wanted)}"
        for policy in self.cpu.policies():
            limits = policy.limits.read(self.sysfs)
            if limits != (mode.cpu_khz, mode.cpu_khz):
                yield "cpu", f"{policy.name} is limited to {_span(limits, 1e3)}"
        limits = self.gpu.limits.read(self.sysfs)
        if limits != (mode.gpu_hz, mode.gpu_hz):
            yield "gpu", f"it is limited to {_span(limits, 1e6)}"
        rate = self.memory.measured(self.sysfs)
        if rate is None or not self.memory.is_held(self.sysfs):
            yield "memory", "its rate is not held"
        elif abs(rate - mode.mem_hz) > 0.001 * mode.mem_hz:
            yield "memory", f"its rate is {rate / 1e6:g} MHz, whatever its cap says"

    def _files(self) -> list[str]:
        return [
            *self.cpu.switches(),
            *self._cpu_files(),
            *self.gpu.files(self.sysfs),
            *self.memory.files(self.sysfs),
        ]

    def _cpu_files(self) -> list[str]:
        return [path for policy in self.cpu.policies() for path in policy.limits.files]

    def _note(self, paths: Callable[[], list[str]]) -> None:
        """Note what files hold, read twice: half a number would be restored as another one."""
        try:
            new = [path for path in paths() if path not in self._journal.found]
            lost = self.cpu.without_clock()
            held = {path: self.sysfs.read(path) for path in new}
            floating = () if self.memory.is_held(self.sysfs) else (self.memory.rate,)
            torn = [p for p in new if p not in floating and self.sysfs.read(p) != held[p]]
        except OSError as error:
            raise DeviceUnavailable(f"cannot read the state to restore: {error}") from None
        if lost:  # a core that goes off and on again would come back with other limits
            raise DeviceUnavailable(f"no clock is found of cores {_listed(lost)}: powerctl doctor")
        if torn:
            raise DeviceUnavailable(f"/{torn[0]} changes while it is read, so nothing is changed")
        self._journal.note(held)


@contextmanager
def _axis(name: str) -> Iterator[None]:
    """Turn a refusal of the kernel into one that names the axis."""
    try:
        yield
    except PermissionError as error:
        raise ModeNotInForce(
            f"{name} cannot be set: {error}; clocks are set by root: sudo, or the daemon"
        ) from None
    except OSError as error:
        raise ModeNotInForce(f"{name} cannot be set: {error}") from None


def _listed(cores: tuple[int, ...]) -> str:
    return ",".join(map(str, cores)) or "none"


def _span(limits: tuple[int, int], per_mhz: float) -> str:
    low, high = (f"{value / per_mhz:g}" for value in limits)
    return f"{low} MHz" if low == high else f"{low} to {high} MHz"


def _before(now: Throttling) -> str:
    """What may keep clocks down though nothing has begun since the mode was applied, in words."""
    said = ", ".join(filter(None, (now.counted(), now.now())))
    return f"before the mode was applied: {said}" if said else "no throttling is counted"


class Verification:
    """Holds a mode against what is measured, from the moment it was applied.

    Parameters
    ----------
    clocks : Clocks
        Of the board.
    mode : PowerMode
        What was applied just now.
    """

    def __init__(self, clocks: Clocks, mode: PowerMode) -> None:
        self._clocks = clocks
        self._mode = mode
        self._throttling = read_throttling(clocks.sysfs)
        self._preset = running_preset(clocks.sysfs)

    def check(self) -> None:
        """Look once, under load, whether the mode is in force.

        Raises
        ------
        ModeNotInForce
            If another program moved a limit, a measured clock is not the one asked for, or the
            board has throttled since the mode was applied; the message names the axis and why.
        """
        try:
            self._clocks.check(self._mode)
        except ModeNotInForce as error:
            raise ModeNotInForce(f"{error}; {self._mover()}") from None
        now = read_throttling(self._clocks.sysfs)
        why = now.since(self._throttling)
        for axis, asked, runs, tolerance in self._measured():
            if abs(runs - asked) > tolerance * asked:
                raise ModeNotInForce(
                    f"{axis} of mode {self._mode} is not in force: asked {asked / 1e6:g} MHz, "
                    f"runs at {runs / 1e6:g} MHz; {why or _before(now)}"
                )
        if why:
            raise ModeNotInForce(
                f"clocks of mode {self._mode} read right now, but the board throttled: {why}"
            )

    def _measured(self) -> list[tuple[str, float, float, float]]:
        """Axis, Hz asked for and measured, and tolerance; what cannot be measured is left out."""
        sysfs, mode = self._clocks.sysfs, self._mode
        shown = [
            (f"cpu ({name})", 1e3 * mode.cpu_khz, 1e3 * khz, _CPU_TOLERANCE)
            for name, khz in self._clocks.cpu.measured().items()
        ]
        for axis, asked, runs in (
            ("gpu", mode.gpu_hz, self._clocks.gpu.measured(sysfs)),
            ("memory", mode.mem_hz, self._clocks.memory.measured(sysfs)),
        ):
            if runs is not None:
                shown.append((axis, float(asked), float(runs), _CLOCK_TOLERANCE))
        return shown

    def _mover(self) -> str:
        """In words, which other program may have moved a limit."""
        preset = running_preset(self._clocks.sysfs)
        if preset != self._preset:
            return f"nvpmodel was switched from mode {self._preset} to {preset} meanwhile"
        return "another program moved it (jetson_clocks, nvpmodel, a service): stop that first"
