"""The execution of a plan: minibatch by minibatch, in the planned modes, inside its limits."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from powerctl.cost_model import idle_power_w
from powerctl.device import Device
from powerctl.fulcrum.guard import Guard
from powerctl.fulcrum.plans import TIME_RESERVE, RoundPlan, Segment
from powerctl.modes import PowerMode
from powerctl.task.process_memory import OUT_OF_MEMORY, ran_out
from powerctl.task.training import Interrupted
from powerctl.workload import Workload

SETTLED_S = 3.0  # power has settled this long after a change (PowerTrain, section 3)
POWER_WINDOW_S = 1.0  # the rate at which jtop and tegrastats sample the module's power


class RunMeter:
    """Reads a device since the meter was made.

    Time and energy are the training's own; power is the module's, which in an agent holds the
    inference beside it.

    Parameters
    ----------
    device : Device
        What trains.

    Attributes
    ----------
    time_s : float
        Seconds on the device's clock, when it was last read.
    energy_j : float
        Joules of the training then, with those that are drawn as power falls after it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._module = device.module
        self._start_s, self._start_j = 0.0, 0.0
        self.read()
        self._start_s, self._start_j = self.time_s, self.energy_j
        self._module_start_j = self._module.energy_j()
        self._busy_s = 0.0
        self._peak_w = 0.0
        self.start_segment()

    def read(self) -> None:
        """Read the device's clock and its energy counter."""
        self.time_s = self._device.now() - self._start_s
        drawn_j = self._device.energy_j() + self._module.falling_j
        self.energy_j = drawn_j - self._start_j

    def start_segment(self) -> None:
        """Start the windows anew: a mode has just been applied."""
        self.read()
        self._segment_s = self.time_s
        self._window = (self.time_s, self._module.energy_j())
        self._settled: tuple[float, float] | None = None

    def tick(self, took_s: float) -> None:
        """Read the device after a minibatch, which took some seconds of its own."""
        self._busy_s += took_s
        self.read()
        if self._settled is None and self.time_s - self._segment_s >= SETTLED_S:
            self._settled = (self._busy_s, self.energy_j)
        if self.time_s - self._window[0] >= POWER_WINDOW_S:
            now = (self.time_s, self._module.energy_j())
            self._peak_w = max(self._peak_w, _mean_power_w(self._window, now))
            self._window = now

    def look(self, guard: Guard) -> PowerMode | None:
        """Let a guard look at the module, if it is time to; the mode that it steps down to."""
        time_s = self._device.now()
        if not guard.is_due(time_s):
            return None
        hot_c = self._module.excess_c(guard.limits.celsius)
        lower = guard.observe(time_s, self._module.energy_j(), hot_c)
        if not math.isnan(guard.mean_w):
            self._peak_w = max(self._peak_w, guard.mean_w)
        return lower

    def settled_power_w(self) -> float:
        """Mean power of the segment's minibatches since it settled; NaN if that is too short."""
        now = (self._busy_s, self.energy_j)
        if self._settled is None or now[0] - self._settled[0] < POWER_WINDOW_S:
            return math.nan
        return _mean_power_w(self._settled, now)

    def peak_power_w(self) -> float:
        """The highest mean over a window; over all the time if that was shorter than one."""
        if not self._peak_w and self.time_s > 0:
            return (self._module.energy_j() - self._module_start_j) / self.time_s
        return self._peak_w


def _mean_power_w(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


_LOG = logging.getLogger("wattfed.client")
MARGIN = 0.25  # three deviations of a minibatch's energy: unit, mode and noise together
_RESERVED = TIME_RESERVE / (1 - TIME_RESERVE) * (1 - 1e-9)  # of its time, that a plan has beyond


@dataclass(frozen=True)
class SegmentResult:
    """What one mode of a plan really took: minibatches done, and the mean seconds of one.

    A first minibatch that warms up is not in the mean, which is NaN where there is no other.
    `settled_power_w` is the mean power after settling; NaN if the segment was too short for it.
    """

    mode: PowerMode
    minibatches: int
    minibatch_s: float
    settled_power_w: float


@dataclass(frozen=True)
class PlanExecution:
    """What the execution of a plan took, mode changes included.

    `warm_up_s` is what the first minibatch took beyond another, where it was to warm up.
    `peak_power_w` is the highest mean over a second; `stopped` is empty, ``"deadline"``,
    ``"energy"``, ``"out of memory"``, or why the device was taken away; `guard_steps` counts the
    guard's steps down, `guard_cause` says what the last was for.
    """

    segments: tuple[SegmentResult, ...]
    time_s: float
    energy_j: float
    peak_power_w: float
    stopped: str
    guard_steps: int = 0
    guard_cause: str = ""
    warm_up_s: float = 0.0

    @property
    def minibatches(self) -> int:
        """The number of minibatches that were done."""
        return sum(segment.minibatches for segment in self.segments)


def execute_plan(
    device: Device,
    workload: Workload,
    plan: RoundPlan,
    steps: Iterator[Callable[[], None]],
    *,
    time_limit_s: float = math.inf,
    energy_cap_j: float = math.inf,
    guard: Guard | None = None,
    progress: Callable[[PowerMode, float, float], None] | None = None,
    is_cold: bool = False,
    cold_s: float = 0.0,
) -> PlanExecution:
    """Train as planned, and stop before a minibatch that might overrun time or energy.

    Parameters
    ----------
    device : Device
        Executes the minibatches; left in the mode it was found in.
    workload : Workload
        What a minibatch is charged as.
    plan : RoundPlan
        Modes and minibatches in each.
    steps : iterator of callable
        The learning of one minibatch each.
    time_limit_s, energy_cap_j : float
        Never exceeded as long as no minibatch costs more than `MARGIN` above what was expected
        and above the dearest one so far. Of time a plan of one or two minibatches has less in
        reserve, and its share is the margin then: else it could never be done.
    guard : Guard, optional
        Looks at the module's power and temperature after each minibatch; where it steps down, the
        rest of the plan is trained in the lower mode.
    progress : callable, optional
        Told of the mode, and of time and energy so far, after each minibatch.
    is_cold : bool
        Whether the first minibatch is the first of its kind in this process, which allocates memory
        and chooses kernels: it is charged, and says nothing of those that follow.
    cold_s : float
        What that takes where it is simulated.
    """
    guard = guard or Guard(device.space)
    margin = MARGIN if plan.minibatches * _RESERVED >= MARGIN else _RESERVED
    run = _Run(device, workload, steps, time_limit_s, margin, energy_cap_j, guard, is_cold, cold_s)
    waiting = deque(plan.segments)
    try:
        while waiting and not run.stopped:
            lower = run.train(run.admitted(waiting.popleft()), progress)
            if lower is not None:
                waiting.appendleft(lower)
        return run.execution()
    finally:
        device.restore()


class _Run:
    """The execution of a plan so far."""

    def __init__(
        self,
        device: Device,
        workload: Workload,
        steps: Iterator[Callable[[], None]],
        time_limit_s: float,
        time_margin: float,
        energy_cap_j: float,
        guard: Guard,
        is_cold: bool,
        cold_s: float,
    ) -> None:
        self.stopped = ""
        self._device = device
        self._workload = workload
        self._steps = steps
        self._time_limit_s = time_limit_s
        self._time_margin = time_margin
        self._energy_cap_j = energy_cap_j
        self._guard = guard
        self._meter = RunMeter(device)
        self._results: list[SegmentResult] = []
        self._is_cold, self._cold_s = is_cold, cold_s
        self._warm_up_s = 0.0

    def admitted(self, segment: Segment) -> Segment:
        """A segment, in a lower mode where the guard has gone lower before."""
        mode = self._guard.admit(segment.mode)
        if mode == segment.mode:
            return segment
        return self._guard.ladder.instead(segment, mode, segment.minibatches)

    def train(
        self, segment: Segment, progress: Callable[[PowerMode, float, float], None] | None
    ) -> Segment | None:
        """Train a segment; gives what is left of it, in another mode, where the guard steps."""
        meter, mode, lower = self._meter, segment.mode, None
        self._device.apply(mode)
        most_s, most_j = segment.time_s * (1 + self._time_margin), segment.energy_j * (1 + MARGIN)
        if self._is_cold and self._cold_s:
            cold_j = self._cold_s * idle_power_w(self._device.board.hardware, *mode.values)
            self.stopped = self._why_not(self._cold_s + most_s, float(cold_j) + most_j)
            if self.stopped:  # it would take its energy, and no minibatch could follow
                return None
            self._device.idle(self._cold_s)
        meter.start_segment()
        self._guard.hold(mode, self._device.now())
        busy_s, first_s, done = 0.0, 0.0, 0
        while done < segment.minibatches and lower is None:
            self.stopped = self._why_not(most_s, most_j)
            if self.stopped:
                break
            before_j = meter.energy_j
            try:
                took_s = self._device.execute(self._workload, next(self._steps))
            except Interrupted as why:
                self.stopped = str(why)
                break
            except Exception as error:
                if not ran_out(error):
                    raise
                _LOG.warning("a minibatch failed: %s", " ".join(str(error).split()))
                self.stopped = OUT_OF_MEMORY
                break
            meter.tick(took_s)
            done += 1
            if self._is_cold:
                self._is_cold, first_s = False, took_s + self._cold_s
            else:
                most_s, most_j = max(most_s, took_s), max(most_j, meter.energy_j - before_j)
                busy_s += took_s
            if progress is not None:
                progress(mode, meter.time_s, meter.energy_j)
            lower = meter.look(self._guard)
        if done:
            settled_w = meter.settled_power_w()
            warm = done - bool(first_s)
            minibatch_s = busy_s / warm if warm else math.nan
            if first_s:
                self._warm_up_s = max(0.0, first_s - (minibatch_s if warm else segment.time_s))
            self._results.append(SegmentResult(mode, done, minibatch_s, settled_w))
        left = segment.minibatches - done
        return self._guard.ladder.instead(segment, lower, left) if lower and left else None

    def execution(self) -> PlanExecution:
        """What it took until now."""
        meter = self._meter
        meter.read()  # waiting for a turn that did not come has taken time as well
        return PlanExecution(
            segments=tuple(self._results),
            time_s=meter.time_s,
            energy_j=meter.energy_j,
            peak_power_w=meter.peak_power_w(),
            stopped=self.stopped,
            guard_steps=self._guard.steps,
            guard_cause=self._guard.cause,
            warm_up_s=self._warm_up_s,
        )

    def _why_not(self, most_s: float, most_j: float) -> str:
        """Why a minibatch that costs so much must not begin; empty if it may."""
        if self._meter.time_s + most_s > self._time_limit_s:
            return "deadline"
        return "energy" if self._meter.energy_j + most_j > self._energy_cap_j else ""
