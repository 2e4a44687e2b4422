"""What is believed of every job in every mode, after a few measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import qmc
from scipy.stats import t as student

from powerctl.cost_model import Signature
from powerctl.fulcrum.search import Record, Search
from powerctl.measurement import MeasurementTable
from powerctl.modes import BoolArray, FloatArray, IntArray
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.reference import Reference

_KINDS = {"train": "train", "infer": "infer", "background": "infer"}
_FREEDOM = 4.0  # of Student's t: in any table some modes are far off every model


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Log times and log powers of the problem's jobs, certain where measured.

    Attributes
    ----------
    roles : IntArray, shape (n_jobs,)
        Number of each job's role: jobs of a role are uncertain together.
    mean, std : FloatArray, shape (2, n_modes, n_jobs)
        Of log time, then of log power, in a measurement to come; std 0 where there is one.
    doubted : BoolArray, shape (n_modes, n_jobs)
        Measured, but not supported by what is measured in all other modes.
    """

    roles: IntArray
    mean: FloatArray
    std: FloatArray
    doubted: BoolArray

    @classmethod
    def of(
        cls,
        search: Search,
        references: Sequence[Reference] | None,
        expected: Mapping[str, Signature] | None = None,
    ) -> Beliefs:
        """Fit a predictor for each role to all that is known, and predict every candidate.

        Parameters
        ----------
        search : Search
            What is known; jobs of other batch sizes than the problem's count too.
        references : sequence of Reference or None
            Of the predictors.
        expected : mapping of str to Signature, optional
            Estimates from counts, by role.
        """
        jobs, record = search.problem.jobs, search.record
        names = list(dict.fromkeys(job.role for job in jobs))
        roles = np.array([names.index(job.role) for job in jobs], dtype=np.int64)
        mean, std = np.empty((2, 2, len(search.candidates), len(jobs)))
        doubted = np.zeros(mean.shape[1:], dtype=bool)
        board = search.candidates.space.name
        for number, role in enumerate(names):
            columns = np.flatnonzero(roles == number)
            predictor = GaussianPredictor(
                board,
                kind=_KINDS[role],
                references=references,
                expected=(expected or {}).get(role),
            )
            predictor.fit(_table(record, role))
            _mark(doubted, predictor, search, columns)
            sizes = [jobs[column].batch_size for column in columns]
            mean[..., columns], std[..., columns] = _predicted(predictor, search, sizes)
        measured = search.measured
        mean[:, measured] = np.log([search.time_s[measured], search.power_w[measured]])
        std[:, measured] = 0.0
        return cls(roles, mean, std, doubted)

    def of_jobs(self, columns: IntArray) -> Beliefs:
        """Those of some of the jobs."""
        return Beliefs(
            self.roles[columns],
            self.mean[..., columns],
            self.std[..., columns],
            self.doubted[:, columns],
        )

    def draw(self, modes: IntArray, n: int) -> tuple[FloatArray, FloatArray]:
        """Seconds and watts as they may be, shape (n, len(modes), n_jobs) each.

        A draw is as lucky in every mode, and with every batch size of a role: that leaves each
        mode's own chances as they are, and compares modes without the noise of sampling.

        Parameters
        ----------
        modes : IntArray
            Of which modes.
        n : int
            How many draws; a power of 2 covers what may be evenly.
        """
        luck = _luck(n, int(self.roles.max()) + 1)[:, :, None, self.roles]
        drawn = np.exp(self.mean[:, modes] + luck * self.std[:, modes])
        return drawn[:, 0], drawn[:, 1]


@cache
def _luck(n: int, n_roles: int) -> FloatArray:
    """Draws of Student's t that cover their space evenly, shape (n, 2, n_roles)."""
    even = qmc.Sobol(2 * n_roles, seed=0).random(n)
    return np.asarray(student.ppf(even, _FREEDOM)).reshape(n, 2, n_roles)


def _table(record: Record, role: str) -> MeasurementTable:
    """All that is measured of a role."""
    columns = [column for column, job in enumerate(record.jobs) if job.role == role]
    known = np.isfinite(record.time_s[:, columns])
    rows, of = np.nonzero(known)
    sizes = [record.jobs[column].batch_size for column in columns]
    return MeasurementTable(
        modes=record.modes.take(rows),
        batch_size=None if None in sizes else np.array(sizes, dtype=np.int64)[of],
        time_s=record.time_s[:, columns][known],
        power_w=record.power_w[:, columns][known],
        source=role,
    )


def _mark(
    doubted: BoolArray, predictor: GaussianPredictor, search: Search, columns: IntArray
) -> None:
    """Mark what a predictor finds unsupported of the jobs that it was fitted to."""
    table = predictor.table_.take(predictor.unsupported_)
    modes = search.candidates.indices(table.modes)
    for column in columns.tolist():
        size = search.problem.jobs[column].batch_size
        of_job = np.full(len(table), True) if size is None else table.batch_size == size
        doubted[modes[of_job], column] = True


def _predicted(
    predictor: GaussianPredictor, search: Search, sizes: Sequence[int | None]
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of logarithms, shape (2, n_modes, len(sizes)) each."""
    modes, n = search.candidates.modes, len(search.candidates)
    rows = modes.take(np.repeat(np.arange(n), len(sizes)))
    given = None if None in sizes else np.tile(np.array(sizes, dtype=np.int64), n)
    found = predictor.predict(rows, given)
    shape = (2, n, len(sizes))
    mean = np.log([found.time_s, found.power_w]).reshape(shape)
    return mean, np.array([found.time_std, found.power_std]).reshape(shape)
