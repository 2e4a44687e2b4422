"""What was measured of which job in which mode, kept between searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.search import Profiled, Record
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import ModeArrays, PowerMode

Facts = dict[tuple[PowerMode, Job], tuple[float, float]]  # seconds and watts of a minibatch


def facts_of(measured: Iterable[Profiled]) -> Facts:
    """What a search measured."""
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
