"""The record of one search: what was measured, at what cost, and the best of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.fulcrum.problems import Assessment, Job, Problem
from powerctl.modes import BoolArray, FloatArray, IntArray, ModeArrays, ModeSpace, PowerMode

Measure = Callable[[PowerMode, Job], tuple[float, float]]  # to seconds and watts


@dataclass(frozen=True, eq=False)
class Candidates:
    """The modes that may be chosen: a space, or some of its modes.

    Parameters
    ----------
    space : ModeSpace
        With the board's name, which predictors go by.
    allowed : BoolArray, shape (len(space),), optional
        Which modes of the space; all by default.
    """

    space: ModeSpace
    allowed: BoolArray | None = None

    def __post_init__(self) -> None:
        if self.allowed is not None and not self.allowed.any():
            raise InvalidInput(f"{self.space.name}: no mode may be chosen; allow at least one")

    @classmethod
    def of(cls, modes: ModeArrays, name: str) -> Candidates:
        """Given modes of a board, which need not be all combinations of their values."""
        axes = (tuple(np.unique(axis).tolist()) for axis in modes)
        space = ModeSpace(*axes, name=name)
        allowed = np.zeros(len(space), dtype=bool)
        allowed[space.indices(modes)] = True
        return cls(space, allowed)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def numbers(self) -> IntArray:
        """Numbers in the space of the candidates, ascending, shape (n_modes,)."""
        if self.allowed is None:
            return np.arange(len(self.space), dtype=np.int64)
        return np.flatnonzero(self.allowed).astype(np.int64)

    @cached_property
    def modes(self) -> ModeArrays:
        """The candidates; arrays of shape (n_modes,)."""
        return self.space.arrays.take(self.numbers)

    @cached_property
    def steps(self) -> IntArray:
        """Where each candidate stands on each axis, as an index, shape (n_modes, 4)."""
        return np.stack(np.unravel_index(self.numbers, self.space.shape), axis=1).astype(np.int64)

    def indices(self, modes: ModeArrays) -> IntArray:
        """Index among the candidates of each mode, -1 where it is none."""
        numbers = self.space.indices(modes)
        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self) - 1)
        return np.where(self.numbers[at] == numbers, at, -1)

    def index(self, mode: PowerMode) -> int:
        """Index of a mode; raises `ModeNotInSpace` if it is no candidate."""
        self.space.check(mode)
        at = int(self.indices(ModeArrays.of([mode]))[0])
        if at < 0:
            raise ModeNotInSpace(f"mode {mode} is not among those that may be chosen")
        return at

    def mode(self, index: int) -> PowerMode:
        """A candidate as an object."""
        return self.modes.mode(index)

    def nearest(self, step: ArrayLike) -> int:
        """Index of the candidate at a place (an index per axis), or the fewest steps from it."""
        return int(np.abs(self.steps - np.asarray(step)).sum(axis=1).argmin())


@dataclass(frozen=True, eq=False)
class Record:
    """Measurements of some jobs in some modes, to start another search from.

    Attributes
    ----------
    modes : ModeArrays
        Arrays of shape (n_modes,).
    jobs : tuple of Job
    time_s, power_w : FloatArray, shape (n_modes, n_jobs)
        Seconds and watts; NaN where not measured.
    """

    modes: ModeArrays
    jobs: tuple[Job, ...]
    time_s: FloatArray
    power_w: FloatArray


class Profiled(NamedTuple):
    """One measurement of a search."""

    mode: PowerMode
    job: Job
    time_s: float
    power_w: float


@dataclass(frozen=True)
class Solution:
    """The answer of a solver.

    Attributes
    ----------
    mode : PowerMode or None
        None if nothing that was measured is feasible.
    batch_sizes : mapping of str to int
        By role: ``infer``, ``background``; training has its own.
    value : float
        The problem's objective in its unit, NaN without a mode.
    figures : mapping of str to float
        What the choice means, by names with units.
    measured : tuple of Profiled
        What was measured for it, in order.
    modes_profiled : int
        Distinct modes that were applied and measured for it.
    reason : str
        Why the search ended.
    predicted : bool
        Whether mode and figures are a prediction that was not measured.
    """

    mode: PowerMode | None
    batch_sizes: Mapping[str, int]
    value: float
    figures: Mapping[str, float]
    measured: tuple[Profiled, ...]
    modes_profiled: int
    reason: str
    predicted: bool = False

    @property
    def solved(self) -> bool:
        """Whether there is an answer."""
        return self.mode is not None


@dataclass(eq=False)
class Search:
    """What one search has measured; solvers measure through it and only through it.

    Parameters
    ----------
    problem : Problem
    candidates : Candidates
    measure : callable
        From a mode and a job to seconds and watts of a minibatch; called once for each, or twice.
    cap : int
        The most distinct modes that may be profiled.
    known : Record, optional
        What was measured before; it does not count against the cap.
    progress : callable, optional
        Told of the search after each mode.

    Attributes
    ----------
    time_s, power_w : FloatArray, shape (n_modes, n_jobs)
        Of the candidates and the problem's jobs; NaN where not measured.
    order : list of (int, int)
        Indices of mode and job, as they were measured; what was known is left out.
    profiled : list of int
        Distinct modes that were applied, in order.
    """

    problem: Problem
    candidates: Candidates
    measure: Measure
    cap: int
    known: Record | None = None
    progress: Callable[[Search], None] | None = None
    time_s: FloatArray = field(init=False, repr=False)
    power_w: FloatArray = field(init=False, repr=False)
    order: list[tuple[int, int]] = field(init=False, default_factory=list, repr=False)
    profiled: list[int] = field(init=False, default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.cap < 0:
            raise InvalidInput(f"the cap of profiled modes is at least 0, got {self.cap}")
        jobs = list(self.problem.jobs)
        if self.known is not None:
            jobs += [job for job in self.known.jobs if job not in jobs]
        self._jobs = tuple(jobs)
        self._applied: set[int] = set()
        shape = (len(self.candidates), len(jobs))
        self._all_time_s, self._all_power_w = np.full(shape, np.nan), np.full(shape, np.nan)
        if self.known is not None:
            self._take_over(self.known)
        n = len(self.problem.jobs)
        self.time_s, self.power_w = self._all_time_s[:, :n], self._all_power_w[:, :n]

    def _take_over(self, known: Record) -> None:
        columns = np.array([self._jobs.index(job) for job in known.jobs], dtype=np.int64)
        if known.modes is self.candidates.modes:
            self._all_time_s[:, columns] = known.time_s
            self._all_power_w[:, columns] = known.power_w
            return
        at = self.candidates.indices(known.modes)
        inside = at >= 0
        where = np.ix_(at[inside], columns)
        self._all_time_s[where] = known.time_s[inside]
        self._all_power_w[where] = known.power_w[inside]

    @property
    def record(self) -> Record:
        """All that is known now, other jobs of the starting record included."""
        return Record(
            self.candidates.modes, self._jobs, self._all_time_s.copy(), self._all_power_w.copy()
        )

    @property
    def left(self) -> int:
        """How many more modes may be profiled; none if there is nothing to choose."""
        return self.cap - len(self.profiled) if self.problem.choices else 0

    @property
    def measured(self) -> BoolArray:
        """Which jobs are measured in which mode, shape (n_modes, n_jobs)."""
        return np.isfinite(self.time_s)

    @property
    def measured_modes(self) -> IntArray:
        """Indices of the modes in which any job is measured, or was known."""
        return np.flatnonzero(self.measured.any(axis=1)).astype(np.int64)

    def profile(self, mode: int, jobs: Iterable[int] | None = None) -> bool:
        """Measure jobs in a mode, those that are not measured yet.

        Parameters
        ----------
        mode : int
            Index of a candidate.
        jobs : iterable of int, optional
            Indices of the problem's jobs; all by default.

        Returns
        -------
        bool
            False if that would take one mode more than the cap allows; then nothing is measured.

        Raises
        ------
        InvalidInput
            If a measurement is no positive number.
        """
        wanted = range(len(self.problem.jobs)) if jobs is None else jobs
        missing = [job for job in wanted if math.isnan(self.time_s[mode, job])]
        if not missing:
            return True
        if mode not in self._applied:
            if self.left < 1:
                return False
            self._applied.add(mode)
            self.profiled.append(mode)
        for job in missing:
            self._measure(mode, job)
            self.order.append((mode, job))
        if self.progress is not None:
            self.progress(self)
        return True

    def repeat(self, mode: int) -> None:
        """Measure all that is measured of a profiled mode a second time, which then counts."""
        for job in np.flatnonzero(self.measured[mode]).tolist():
            self._measure(mode, job)

    def _measure(self, mode: int, job: int) -> None:
        applied, of_job = self.candidates.mode(mode), self.problem.jobs[job]
        time_s, power_w = self.measure(applied, of_job)
        if not (0 < time_s < math.inf and 0 < power_w < math.inf):
            raise InvalidInput(
                f"measuring {of_job} in {applied} gave {time_s:g} s and {power_w:g} W; "
                "both must be positive numbers"
            )
        self.time_s[mode, job], self.power_w[mode, job] = time_s, power_w

    def evaluate(self, modes: ArrayLike) -> Assessment:
        """Judge modes by what is measured; arrays of shape (len(modes), n_choices)."""
        at = np.asarray(modes, dtype=np.int64)
        return self.problem.evaluate(self.time_s[at], self.power_w[at])

    def best(self) -> tuple[int, int] | None:
        """Mode and choice of the least loss that is measured and feasible; ties to less power."""
        modes = self.measured_modes
        found = best_of(self.evaluate(modes))
        return None if found is None else (int(modes[found[0]]), found[1])

    def solution(self, reason: str) -> Solution:
        """The best of what is measured, as an answer."""
        found = self.best()
        if found is None:
            return self.answer(None, {}, math.nan, {}, reason)
        mode, choice = found
        loss = float(self.evaluate([mode]).loss[0, choice])
        return self.answer(
            self.candidates.mode(mode),
            self.problem.chosen_sizes(choice),
            self.problem.value(loss),
            self.problem.figures(self.time_s[mode], self.power_w[mode], choice),
            reason,
        )

    def answer(
        self,
        mode: PowerMode | None,
        batch_sizes: Mapping[str, int],
        value: float,
        figures: Mapping[str, float],
        reason: str,
        *,
        predicted: bool = False,
    ) -> Solution:
        """An answer with the record of this search; solvers that measure use `solution`."""
        measured = tuple(
            Profiled(
                self.candidates.mode(at),
                self.problem.jobs[job],
                float(self.time_s[at, job]),
                float(self.power_w[at, job]),
            )
            for at, job in self.order
        )
        profiled = len(self.profiled)
        return Solution(mode, batch_sizes, value, figures, measured, profiled, reason, predicted)


def best_of(evaluation: Assessment) -> tuple[int, int] | None:
    """Row and column of the feasible choice of least loss, then of least power; None without."""
    rows, columns = np.nonzero(evaluation.feasible)
    if not len(rows):
        return None
    at = (rows, columns)
    loss = evaluation.loss[at].round(12)  # k a/b of two batches may differ in the last digit
    first = np.lexsort((evaluation.power_w[at], loss))[0]
    return int(rows[first]), int(columns[first])
