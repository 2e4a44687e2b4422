"""The power guard: steps a held mode down that draws more, or is hotter, than it may."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from powerctl.device import COOL
from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import Front, Segment
from powerctl.modes import ModeSpace, PowerMode

POWER, HEAT = "power", "temperature"
"""What a guard steps for."""

_LOOKS = 8  # at most so many in a window: of energies, so that a mean is exact however few


@dataclass(frozen=True)
class GuardLimits:
    """The limits on power and temperature that a mode must keep while work runs in it.

    Attributes
    ----------
    power_w : float
        Limit on the module's mean power over a window.
    celsius : float
        Limit on the temperature of any part; below its throttling point in any case.
    window_s : float
        So long power, or temperature, may be above its limit.
    settling_s : float
        After a change of mode, power is not held against the new mode for so long: it follows
        with a time constant of 0.8 s (PowerTrain logs).
    cooling_s : float
        Likewise temperature, after a step for it.
    """

    power_w: float = math.inf
    celsius: float = math.inf
    window_s: float = 1.0
    settling_s: float = 1.0
    cooling_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.power_w > 0 or not 0 < self.window_s < math.inf:
            raise InvalidInput(f"a guard needs a positive limit and a positive window: {self}")
        if not (self.settling_s >= 0 and self.cooling_s >= 0):
            raise InvalidInput(f"a guard's pauses cannot be negative: {self}")


@dataclass(frozen=True)
class Ladder:
    """The modes to step down to: those of a front, then lower ones of the space.

    Attributes
    ----------
    space : ModeSpace
        All modes of the device.
    front : Front or None
        What is expected of a minibatch in the best of them; its powers fall along it.
    """

    space: ModeSpace
    front: Front | None = None

    def below(self, mode: PowerMode, share: float = 1.0) -> PowerMode | None:
        """The next mode that should draw at most a share of what a mode draws.

        Parameters
        ----------
        mode : PowerMode
            The one in force.
        share : float
            At most 1. Along the front by expected power; in the space, where none is known, the
            clocks of CPU and GPU fall to that share.

        Returns
        -------
        PowerMode or None
            None if there is nothing lower.
        """
        at = self._rank(mode)
        if at is None or self.front is None:
            return _slower(self.space, mode, share)
        modes, power_w = self.front.modes, self.front.power_w
        wanted_w = share * float(power_w[at])
        for i in range(at + 1, len(modes)):
            if power_w[i] <= wanted_w:
                return modes[i]
        return _slower(self.space, modes[-1], min(1.0, wanted_w / float(power_w[-1])))

    def reaches(self, mode: PowerMode, other: PowerMode) -> bool:
        """Whether a mode is at least as far down as another."""
        at, at_other = self._rank(mode), self._rank(other)
        if at is not None and at_other is not None:
            return at >= at_other
        return all(a <= b for a, b in zip(mode.values, other.values, strict=True))

    def instead(self, segment: Segment, mode: PowerMode, minibatches: int) -> Segment:
        """Minibatches of a segment in another mode, with what they are expected to cost at most.

        In a mode that is not of the front a minibatch takes at most as much longer as the axis
        that falls most, at no more power.
        """
        at = self._rank(mode)
        if at is not None and self.front is not None:
            return self.front.segment(at, minibatches)
        falls = max(a / b for a, b in zip(segment.mode.values, mode.values, strict=True))
        slower = max(1.0, falls)
        return Segment(mode, minibatches, slower * segment.time_s, slower * segment.energy_j)

    def _rank(self, mode: PowerMode) -> int | None:
        if self.front is None or mode not in self.front.modes:
            return None
        return self.front.modes.index(mode)


def _slower(space: ModeSpace, mode: PowerMode, share: float) -> PowerMode | None:
    """A mode with no axis higher and at least one lower, so of no more power; None at the end.

    CPU and GPU fall to a share of their clocks, or if that is no step, the one of them that is
    further up its range by one; memory and cores, whose steps are long, when both are at their
    lowest.
    """
    axes = zip(mode.values, space.axes, strict=True)
    cores, cpu, gpu, mem = ([v for v in axis if v <= now] for now, axis in axes)
    slow_cpu, slow_gpu = (
        max((v for v in axis if v <= share * axis[-1]), default=axis[0]) for axis in (cpu, gpu)
    )
    if (slow_cpu, slow_gpu) != (cpu[-1], gpu[-1]):
        return PowerMode(cores[-1], slow_cpu, slow_gpu, mem[-1])
    gpu_first = gpu[-1] / space.gpu_hz[-1] >= cpu[-1] / space.cpu_khz[-1]
    for axis in (*((gpu, cpu) if gpu_first else (cpu, gpu)), mem, cores):
        if len(axis) > 1:
            axis.pop()
            return PowerMode(cores[-1], cpu[-1], gpu[-1], mem[-1])
    return None


class Guard:
    """The guard of a device that nothing limits: told of modes and measurements, it never steps.

    `PowerGuard` is the one that does.

    Attributes
    ----------
    limits : GuardLimits
        What it keeps.
    ladder : Ladder
        Where steps down lead.
    steps : int
        Steps so far.
    cause : str
        What the last was for: `POWER` or `HEAT`; empty before the first.
    mean_w : float
        The module's mean power over the window last looked at; NaN without one.
    """

    def __init__(self, space: ModeSpace) -> None:
        self.limits = GuardLimits()
        self.ladder = Ladder(space)
        self.steps = 0
        self.cause = ""
        self.mean_w = math.nan

    def admit(self, mode: PowerMode) -> PowerMode:
        """The mode to hold where another is planned."""
        return mode

    def hold(self, mode: PowerMode, time_s: float) -> None:
        """Take note that a mode was applied, from which time on it is watched."""

    def is_due(self, time_s: float) -> bool:
        """Whether to look at this time."""
        return False

    def observe(self, time_s: float, energy_j: float, excess_c: float = COOL) -> PowerMode | None:
        """The mode to step down to now; None to stay."""
        return None


@dataclass
class PowerGuard(Guard):
    """Steps down when the mean power over a window, or the temperature for as long, is too high.

    It is told energies and not powers, so that a mean is right however seldom it looks. Along a
    front it goes at once to the mode expected to stay within the limit, if every expectation is
    wrong by as much as that of the mode in force. It never steps up: that is for the next plan.

    Parameters
    ----------
    limits : GuardLimits
        What to keep.
    ladder : Ladder
        Where steps lead.
    """

    limits: GuardLimits
    ladder: Ladder
    steps: int = 0
    cause: str = ""
    mean_w: float = math.nan
    _held: PowerMode | None = field(default=None, init=False)
    _ceiling: PowerMode | None = field(default=None, init=False)
    _looks: deque[tuple[float, float]] = field(default_factory=deque, init=False)
    _next_s: float = field(default=-math.inf, init=False)
    _hot_since_s: float = field(default=math.inf, init=False)
    _hot_again_s: float = field(default=-math.inf, init=False)

    def admit(self, mode: PowerMode) -> PowerMode:
        """The mode, or the one stepped down to where that is further down."""
        if self._ceiling is None or self.ladder.reaches(mode, self._ceiling):
            return mode
        return self._ceiling

    def hold(self, mode: PowerMode, time_s: float) -> None:
        """A mode was applied: what was measured before says nothing of it."""
        if mode != self._held:
            self._held = mode
            self._looks.clear()
            self._next_s = time_s + self.limits.settling_s

    def is_due(self, time_s: float) -> bool:
        """Whether it is time to look: not while power settles, and some times a window."""
        return time_s >= self._next_s

    def observe(self, time_s: float, energy_j: float, excess_c: float = COOL) -> PowerMode | None:
        """Look at the energy and heat of a device, and step down if they are too high.

        Parameters
        ----------
        time_s, energy_j : float
            Its clock, and the module's energy counter.
        excess_c : float
            By how much it is hotter than it may be; negative if it is cooler.

        Returns
        -------
        PowerMode or None
            The mode to step down to now; None to stay, or if there is no lower one.
        """
        if self._held is None or not self.is_due(time_s):
            return None
        self._next_s = time_s + self.limits.window_s / _LOOKS
        too_hot = self._is_too_hot(time_s, excess_c)
        self.mean_w = self._mean_power_w(time_s, energy_j)
        if self.mean_w > self.limits.power_w:
            return self._step(POWER, self._held, self.limits.power_w / self.mean_w)
        if too_hot:
            self._hot_since_s, self._hot_again_s = math.inf, time_s + self.limits.cooling_s
            return self._step(HEAT, self._held, 1.0)
        return None

    def _mean_power_w(self, time_s: float, energy_j: float) -> float:
        """Over the last window; NaN before there was a whole one."""
        looks, window_s = self._looks, self.limits.window_s
        looks.append((time_s, energy_j))
        while len(looks) > 1 and looks[1][0] <= time_s - window_s:
            looks.popleft()
        lasted_s = time_s - looks[0][0]
        return (energy_j - looks[0][1]) / lasted_s if lasted_s >= window_s else math.nan

    def _is_too_hot(self, time_s: float, excess_c: float) -> bool:
        if not excess_c > 0 or time_s < self._hot_again_s:
            self._hot_since_s = math.inf
            return False
        self._hot_since_s = min(self._hot_since_s, time_s)
        return time_s - self._hot_since_s >= self.limits.window_s

    def _step(self, cause: str, mode: PowerMode, share: float) -> PowerMode | None:
        lower = self.ladder.below(mode, share)
        if lower is not None:
            self._ceiling, self.cause = lower, cause
            self.steps += 1
        return lower
