"""Measured tables as what a search replays, starts from, or leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.search import Candidates, Profiled, Record
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import BoolArray, FloatArray, IntArray, ModeArrays, ModeSpace, PowerMode

Facts = dict[tuple[PowerMode, Job], tuple[float, float]]  # seconds and watts of a minibatch


@dataclass(frozen=True, eq=False)
class Replay:
    """Tables of the jobs that share a board, over the modes that all of them have.

    Attributes
    ----------
    candidates : Candidates
        Modes in which every job was measured.
    record : Record
        All of it, shape (len(candidates), n_jobs).
    """

    candidates: Candidates
    record: Record

    @classmethod
    def of(
        cls, tables: Mapping[str, MeasurementTable], board: str, within: ModeSpace | None = None
    ) -> Replay:
        """Bring the tables of a board together, over the modes that all have.

        Parameters
        ----------
        tables : mapping of str to MeasurementTable
            By role: ``train`` (without batch sizes), ``infer``, ``background`` (with).
        board : str
            Name of the board.
        within : ModeSpace, optional
            Leaves out modes that are not in it.

        Raises
        ------
        InvalidInput
            For a table with batch sizes where there should be none, or without; or tables that
            share no mode.
        """
        parts = {job: part for role, t in tables.items() for job, part in _by_job(role, t).items()}
        everything = ModeArrays(*np.concatenate([p.modes for p in parts.values()], axis=1))
        union = Candidates.of(everything, board)
        shared = np.ones(len(union.space), dtype=bool)
        for part in parts.values():
            present = np.zeros(len(union.space), dtype=bool)
            present[union.space.indices(part.modes)] = True
            shared &= present
        if within is not None:
            shared &= within.indices(union.space.arrays) >= 0
        if not shared.any():
            names = ", ".join(table.source for table in tables.values())
            grid = "" if within is None else " of the grid asked for"
            raise InvalidInput(
                f"no mode{grid} was measured in all of {names}: are they of a board?"
            )
        candidates = Candidates.of(union.space.arrays.take(np.flatnonzero(shared)), board)
        columns = [_column(candidates, part) for part in parts.values()]
        time_s, power_w = (np.stack(c, axis=1) for c in zip(*columns, strict=True))
        return cls(candidates, Record(candidates.modes, tuple(parts), time_s, power_w))

    def batch_sizes(self, role: str) -> tuple[int, ...]:
        """The batch sizes that were measured of a role, ascending."""
        sizes = (job.batch_size for job in self.record.jobs if job.role == role)
        return tuple(sorted(size for size in sizes if size is not None))

    def columns(self, jobs: tuple[Job, ...]) -> tuple[FloatArray, FloatArray]:
        """Seconds and watts of jobs in all candidates, shape (n_modes, n_jobs) each."""
        at = [self._column(job) for job in jobs]
        return self.record.time_s[:, at], self.record.power_w[:, at]

    def measure(self, mode: PowerMode, job: Job) -> tuple[float, float]:
        """Seconds and watts of a job in a mode."""
        at, column = self.candidates.index(mode), self._column(job)
        return float(self.record.time_s[at, column]), float(self.record.power_w[at, column])

    def _column(self, job: Job) -> int:
        try:
            return self.record.jobs.index(job)
        except ValueError:
            known = ", ".join(map(str, self.record.jobs))
            raise InvalidInput(f"no table has {job}; there are: {known}") from None


def _by_job(role: str, table: MeasurementTable) -> dict[Job, MeasurementTable]:
    if role == "train":
        if table.batch_size is not None:
            raise InvalidInput(f"{table.source} has batch sizes: it is of inference, not training")
        return {Job(role): table}
    if table.batch_size is None:
        raise InvalidInput(f"{table.source} has no column batch_size: it is of training")
    sizes = np.unique(table.batch_size).tolist()
    return {Job(role, n): table.take(np.flatnonzero(table.batch_size == n)) for n in sizes}


def _column(candidates: Candidates, part: MeasurementTable) -> tuple[FloatArray, FloatArray]:
    at: IntArray = candidates.indices(part.modes)
    inside: BoolArray = at >= 0
    columns = np.full((2, len(candidates)), np.nan)
    columns[:, at[inside]] = part.time_s[inside], part.power_w[inside]
    return columns[0], columns[1]


def facts_of(measured: Iterable[Profiled]) -> Facts:
    """Seconds and watts that a search measured, by mode and job."""
    return {(m.mode, m.job): (m.time_s, m.power_w) for m in measured}


def facts_of_tables(tables: Mapping[str, MeasurementTable]) -> Facts:
    """What tables hold, by role; those of training have no batch sizes."""
    return {
        (row.mode, Job(role, row.batch_size)): (row.time_s, row.power_w)
        for role, table in tables.items()
        for row in (table[number] for number in range(len(table)))
    }


def tables_of(facts: Facts) -> dict[str, MeasurementTable]:
    """A table for each role."""
    rows: dict[str, list[Measurement]] = {}
    for (mode, job), (time_s, power_w) in facts.items():
        rows.setdefault(job.role, []).append(Measurement(mode, time_s, power_w, job.batch_size))
    return {role: MeasurementTable.of(found, role) for role, found in rows.items()}


def record_of(facts: Facts) -> Record | None:
    """What a search starts from; None without facts."""
    if not facts:
        return None
    modes = {mode: row for row, mode in enumerate(dict.fromkeys(mode for mode, _ in facts))}
    jobs = {job: column for column, job in enumerate(dict.fromkeys(job for _, job in facts))}
    values = np.full((2, len(modes), len(jobs)), np.nan)
    for (mode, job), costs in facts.items():
        values[:, modes[mode], jobs[job]] = costs
    return Record(ModeArrays.of(list(modes)), tuple(jobs), values[0], values[1])
