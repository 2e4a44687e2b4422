"""Measured tables replayed: what a search would measure, and what brute force knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.search import Candidates, Record
from powerctl.measurement import MeasurementTable
from powerctl.modes import BoolArray, FloatArray, IntArray, ModeArrays, ModeSpace, PowerMode


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
        """Bring tables together.

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
