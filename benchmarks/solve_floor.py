"""What a solver would lose that knew all of the tables but for each row's noise.

    python -m benchmarks.solve_floor T.csv ... --cap 10
    python -m benchmarks.solve_floor T.csv ... --infer I.csv --cap 15

It is the default solver with other beliefs: of each mode, what all other rows of the table say of
it, and how surely. What it still loses to brute force is in single rows that no model expects.
Training alone is solved for all of Fulcrum's limits, beside inference for some, as
`benchmarks.leave_one_out` draws them, on the tables as they are and screened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.configurations import Bounds, load_replay, read_screened, solvable
from benchmarks.solve import Judge, evaluate
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.fulcrum.beliefs import Beliefs
from powerctl.fulcrum.model_based import ModelBased
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Search
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.gaussian import GaussianPredictor

_COLUMNS = {
    "table": "table",
    "rows": "rows",
    "cap": "cap",
    "solved_pct": "solved %",
    "loss_median_pct": "median %",
    "loss_mean_pct": "mean %",
    "loss_max_pct": "max %",
}


@dataclass(frozen=True)
class _Knowing(ModelBased):
    """The default solver, which believes of modes that it has not measured what it is told."""

    jobs: tuple[Job, ...] = ()
    told: Beliefs | None = None  # of the jobs

    def _beliefs(self, search: Search) -> Beliefs:
        assert self.told is not None
        at = [self.jobs.index(job) for job in search.problem.jobs]
        told = self.told.of_jobs(np.array(at, dtype=np.int64))
        measured = search.measured
        mean, std = told.mean.copy(), told.std.copy()
        mean[:, measured] = np.log([search.time_s[measured], search.power_w[measured]])
        std[:, measured] = 0.0
        return replace(told, mean=mean, std=std)


@dataclass(frozen=True)
class _Judge(Judge):
    knowing: _Knowing | None = None

    def make(self, seed: int) -> _Knowing:
        """The solver that knows."""
        assert self.knowing is not None
        return self.knowing


def of_all_others(replay: Replay) -> Beliefs:
    """What is believed of each job in each mode by all its other rows."""
    record = replay.record
    mean, std = np.empty((2, 2, *record.time_s.shape))
    for column, job in enumerate(record.jobs):
        time_s, power_w = record.time_s[:, column], record.power_w[:, column]
        table = MeasurementTable(record.modes, None, time_s, power_w, str(job))
        predictor = GaussianPredictor(
            replay.candidates.space.name,
            kind=job.role,
            batch_size=job.batch_size or 16,
            references=(),
        )
        fitted = predictor.fit(table).posterior_
        mean[..., column] = np.log([time_s, power_w]) - fitted.loo_error
        std[..., column] = fitted.loo_std
    roles = np.array([job.role != "train" for job in record.jobs], dtype=np.int64)
    return Beliefs(roles, mean, std, np.zeros(mean.shape[1:], dtype=bool))


def floor(train: str, infer: str | None, board: Board, cap: int, n: int) -> list[dict[str, Any]]:
    """The rows of a table of training, alone or beside inference: as it is, and screened."""
    kind = "train" if infer is None else "concurrent"
    bounds = Bounds.parse(kind, {}, "rate", False)
    rows = []
    for name, read in (("as it is", MeasurementTable.read), ("screened", read_screened)):
        replay = load_replay(kind, {"train": train, "infer": infer}, board, "published", read)
        knowing = _Knowing(jobs=replay.record.jobs, told=of_all_others(replay))
        judge = _Judge("default", replay, (), cap, 0, knowing=knowing)
        problems = bounds.problems(replay.batch_sizes("infer"), n)
        found = evaluate(judge, bounds, solvable(replay, problems), 1)
        rows.append({"table": Path(train).name, "rows": name, **found})
    return rows


@click.command(help=__doc__)
@click.argument("tables", nargs=-1, required=True)
@click.option("--infer", help="Table of inference that runs beside training.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of all tables.")
@click.option("--cap", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--configurations", "n", default=150, show_default=True, help="At most, drawn.")
def main(tables: Sequence[str], infer: str | None, board: str, cap: int, n: int) -> None:
    """Run the benchmark."""
    rows = [row for path in tables for row in floor(path, infer, load_board(board), cap, n)]
    console.print_table(list(_COLUMNS.values()), [[row[name] for name in _COLUMNS] for row in rows])


if __name__ == "__main__":
    console.run(main)
