"""Many modes, measured: which next, in what order, what is known already, and how long yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Protocol, runtime_checkable

import numpy as np

from powerctl.device import Device
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import IntArray, PowerMode
from powerctl.profiler.measuring import ProfiledMode, Step, measure_mode
from powerctl.profiler.procedure import Procedure
from powerctl.profiler.profile_log import ProfileLog
from powerctl.workload import Workload


class Sampler(Protocol):
    """Says which modes to measure next, knowing what was measured; so it may adapt."""

    @property
    def total(self) -> int:
        """How many modes it will ask for at most."""
        ...

    def next(self, measured: Sequence[ProfiledMode]) -> Sequence[PowerMode]:
        """The next modes, in the order to measure them in; none when it is done."""
        ...


@runtime_checkable
class Doubting(Protocol):
    """A sampler that knows what to expect; a measurement that it doubts is made again."""

    def doubts(self, entry: ProfiledMode) -> bool:
        """Whether another mode seems to have been in force, or something else to have run."""
        ...


@dataclass(frozen=True)
class FixedModes:
    """Samples a list of modes, in the order that saves switches.

    Parameters
    ----------
    modes : sequence of PowerMode
        Which; each is measured once however often it is listed.
    """

    modes: Sequence[PowerMode]

    @property
    def total(self) -> int:
        """How many different modes are listed."""
        return len(set(self.modes))

    def next(self, measured: Sequence[ProfiledMode]) -> Sequence[PowerMode]:
        """All listed modes that are not measured yet, in the order that saves switches."""
        done = {entry.mode for entry in measured}
        left = [mode for mode in dict.fromkeys(self.modes) if mode not in done]
        return switch_order(left, measured[-1].mode if measured else None)


@dataclass(frozen=True)
class ProfileProgress:
    """Where a profiling run stands; batch sizes of one mode count one each.

    Attributes
    ----------
    done, total : int
        Measured, those of an earlier run included; and expected in all.
    mode, batch_size : PowerMode, int or None
        What is measured next; None at the end.
    seconds_left : float
        Expected on the device's clock, from the mean so far; NaN while nothing is measured.
    budget_left_s : float
        Of the time budget; inf without one.
    left_out : int
        Not measured because not expected to end within the budget; known at the end.
    repeated : int
        Measured a second time in this run, as the sampler doubted the first: the second counts.
    """

    done: int
    total: int
    mode: PowerMode | None
    batch_size: int | None
    seconds_left: float
    budget_left_s: float
    left_out: int = 0
    repeated: int = 0


def profile(
    device: Device,
    workload: Workload,
    sampler: Sampler,
    log: ProfileLog,
    *,
    procedure: Procedure = Procedure(),
    budget_s: float = math.inf,
    batch_sizes: Sequence[int] = (),
    step: Step | Mapping[int, Step] | None = None,
    progress: Callable[[ProfileProgress], None] | None = None,
) -> MeasurementTable:
    """Measure the modes that a sampler asks for; what the log already holds is not repeated.

    Parameters
    ----------
    device : Device
        What runs them; brought back to the mode found, whatever happens.
    workload : Workload
        What runs.
    sampler : Sampler
        Which modes.
    log : ProfileLog
        Gets each result as soon as there is one.
    procedure : Procedure
        When a mode is measured well enough.
    budget_s : float
        Time of this run on the device's clock. A mode is not started unless it is expected to end
        within: see `expected_seconds`. The first of all has no expectation and is started.
    batch_sizes : sequence of int
        Measured one after another in each mode; none means the workload's own.
    step : callable, or mapping of batch size to callable, optional
        Runs one minibatch, for devices that really run.
    progress : callable, optional
        Told before each measurement, and once at the end.

    Returns
    -------
    MeasurementTable
        All that the log holds.

    Raises
    ------
    ModeNotInSpace, ModeNotInForce
        If a mode that was asked for cannot be set, or a table does not hold it. What was measured
        before stays in the log.
    """
    sizes = tuple(dict.fromkeys(batch_sizes)) or (workload.batch_size,)
    work = {size: (workload.with_batch_size(size), _step_of(step, size, sizes)) for size in sizes}
    run = _Run(device, sampler, log, sizes, budget_s, progress)
    try:
        while run.has_more():
            for mode in run.queue:
                for size in run.missing(mode):
                    if not run.may_start(mode, size):
                        return log.table()
                    job, its_step = work[size]
                    entry = measure_mode(device, job, mode, procedure, its_step)
                    if run.must_repeat(entry):
                        again = measure_mode(device, job, mode, procedure, its_step)
                        entry = replace(again, seconds=entry.seconds + again.seconds)
                    run.keep(entry)
        return log.table()
    finally:
        device.restore()


def _step_of(
    step: Step | Mapping[int, Step] | None, size: int, sizes: Sequence[int]
) -> Step | None:
    if isinstance(step, Mapping):
        if size not in step:
            raise InvalidInput(f"no step for batch size {size}; there are {sorted(step)}")
        return step[size]
    if step is not None and len(sizes) > 1:
        raise InvalidInput(
            f"one step cannot run the batch sizes {', '.join(map(str, sizes))}; "
            "give a mapping of batch size to step"
        )
    return step


class _Run:
    """The book-keeping of one profiling run: what is missing, and what the budget allows."""

    def __init__(
        self,
        device: Device,
        sampler: Sampler,
        log: ProfileLog,
        sizes: tuple[int, ...],
        budget_s: float,
        progress: Callable[[ProfileProgress], None] | None,
    ) -> None:
        if not budget_s > 0:
            raise InvalidInput(f"the time budget is {budget_s} s, not above 0")
        self.device = device
        self.sampler = sampler
        self.log = log
        self.sizes = sizes
        self.progress = progress
        self.queue: list[PowerMode] = []
        self._ends_s = device.now() + budget_s
        self._entries = [entry for entry in log.entries if entry.batch_size in sizes]
        self._seconds = sum(entry.seconds for entry in self._entries)
        self._done: dict[PowerMode, set[int]] = {}
        for entry in self._entries:
            self._done.setdefault(entry.mode, set()).add(entry.batch_size)
        self._n_queued = 0
        self._n_repeated = 0

    def missing(self, mode: PowerMode) -> list[int]:
        """The batch sizes not measured yet in a mode."""
        return [size for size in self.sizes if size not in self._done.get(mode, ())]

    def has_more(self) -> bool:
        """Ask the sampler, which sees the complete modes, for the next; False when it is done."""
        complete = [entry for entry in self._entries if not self.missing(entry.mode)]
        asked = list(dict.fromkeys(self.sampler.next(complete)))
        for mode in asked:  # before any is measured: better now than in two hours
            self.device.space.check(mode)
        self.queue = [mode for mode in asked if self.missing(mode)]
        if asked and not self.queue:
            raise InvalidInput(
                f"{type(self.sampler).__name__} asks only for modes that are measured already, "
                f"such as {asked[0]}; when it is done it must ask for none"
            )
        self._n_queued = sum(len(self.missing(mode)) for mode in self.queue)
        if not self.queue:
            self._tell(None, None, total=len(self._entries))
        return bool(self.queue)

    def may_start(self, mode: PowerMode, size: int) -> bool:
        """Whether the budget allows this measurement; tells progress either way."""
        done, budget_left_s = len(self._entries), self._ends_s - self.device.now()
        total = max(done + self._n_queued, self.sampler.total * len(self.sizes))
        if budget_left_s < math.inf and (
            budget_left_s <= 0 or expected_seconds(self._entries, mode, size) > budget_left_s
        ):
            self._tell(None, None, total, left_out=total - done)
            return False
        self._tell(mode, size, total)
        return True

    def must_repeat(self, entry: ProfiledMode) -> bool:
        """Whether the sampler doubts a measurement, and there is time for another."""
        in_time = self._ends_s - self.device.now() >= entry.seconds
        doubted = isinstance(self.sampler, Doubting) and self.sampler.doubts(entry)
        self._n_repeated += in_time and doubted
        return in_time and doubted

    def keep(self, entry: ProfiledMode) -> None:
        """Log a measurement, and count it as done."""
        self.log.append(entry)
        self._entries.append(entry)
        self._seconds += entry.seconds
        self._done.setdefault(entry.mode, set()).add(entry.batch_size)
        self._n_queued -= 1

    def _tell(
        self, mode: PowerMode | None, size: int | None, total: int, left_out: int = 0
    ) -> None:
        done = len(self._entries)
        mean = self._seconds / done if done else math.nan
        if self.progress is not None:
            self.progress(
                ProfileProgress(
                    done=done,
                    total=total,
                    mode=mode,
                    batch_size=size,
                    seconds_left=(total - done) * mean if total > done else 0.0,
                    budget_left_s=self._ends_s - self.device.now(),
                    left_out=left_out,
                    repeated=self._n_repeated,
                )
            )


def expected_seconds(measured: Sequence[ProfiledMode], mode: PowerMode, batch_size: int) -> float:
    """How long measuring a mode will take: 0 while nothing is measured.

    The larger of the mean so far and what the most similar mode took (nearest in the logarithms
    of its axes, of the same batch size where there is one). Modes are measured from high clocks
    to low, so that the mean alone would be too hopeful.
    """
    if not measured:
        return 0.0
    alike = [entry for entry in measured if entry.batch_size == batch_size] or list(measured)
    axes = np.log(np.array([entry.mode.values for entry in alike], dtype=np.float64))
    distance = np.abs(axes - np.log(np.array(mode.values, dtype=np.float64))).sum(axis=1)
    mean = sum(entry.seconds for entry in alike) / len(alike)
    return max(mean, alike[int(np.argmin(distance))].seconds)


def switch_order(modes: Sequence[PowerMode], start: PowerMode | None = None) -> list[PowerMode]:
    """Modes in an order that changes few axes from one to the next, clocks downwards if it can.

    On older releases only changes from high to low clocks worked without a reboot (PowerTrain),
    and every axis that changes is one more file to write and to wait for. The best is taken of
    the order given and, for each order of the axes, there and back along them: one change a mode
    on a full grid. Always going to the nearest mode saves 3 % more on 30 scattered modes, 10 % on
    300: not worth a second method.

    Parameters
    ----------
    modes : sequence of PowerMode
        In any order.
    start : PowerMode, optional
        The mode in force before.

    Returns
    -------
    list of PowerMode
        The same modes. It never has more changes of an axis than the order given, and with as
        many not more changes upwards.
    """
    if len(modes) < 2:
        return list(modes)
    table = np.array([mode.values for mode in modes], dtype=np.int64)
    before = None if start is None else np.array(start.values, dtype=np.int64)
    candidates = [np.arange(len(modes))]
    candidates += [_there_and_back(table, axes) for axes in permutations(range(4))]
    best = min(candidates, key=lambda order: _switches(table[order], before))
    return [modes[i] for i in best.tolist()]


def _switches(path: IntArray, before: IntArray | None) -> tuple[int, int]:
    """Changes of an axis along a path, and how many of those raise it."""
    if before is not None:
        path = np.vstack([before, path])
    steps = np.diff(path, axis=0)
    return int(np.count_nonzero(steps)), int(np.count_nonzero(steps > 0))


def _there_and_back(table: IntArray, axes: Sequence[int]) -> IntArray:
    """Indices sorted by the axes, outermost first and falling; inner axes turn round each time."""
    order = np.lexsort([-table[:, axis] for axis in reversed(axes)])
    for depth in range(1, len(axes)):
        outer = table[order][:, axes[:depth]]
        group = np.cumsum(np.r_[False, np.any(np.diff(outer, axis=0) != 0, axis=1)])
        inner = table[order][:, axes[depth]]
        turned = np.where(group % 2 == 1, inner, -inner)
        rest = [-table[order][:, axis] for axis in reversed(axes[depth + 1 :])]
        order = order[np.lexsort([*rest, turned, group])]
    return order
