"""What a solver of training alone would lose that knew all of a table but for each row's noise.

    python -m benchmarks.solve_floor T.csv ... --cap 10

It is the default solver with other beliefs: of each mode, what all other rows of the table say of
it, and how surely. What it still loses to brute force is in single rows that no model expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.configurations import Bounds, load_replay, solvable
from benchmarks.solve import Judge, evaluate
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.fulcrum.beliefs import Beliefs
from powerctl.fulcrum.model_based import ModelBased
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Search
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.gaussian import GaussianPredictor

_COLUMNS = {
    "table": "table",
    "cap": "cap",
    "solved_pct": "solved %",
    "loss_median_pct": "median %",
    "loss_mean_pct": "mean %",
    "loss_max_pct": "max %",
}


@dataclass(frozen=True)
class _Knowing(ModelBased):
    """The default solver, which believes of modes that it has not measured what it is told."""

    told: Beliefs | None = None

    def _beliefs(self, search: Search) -> Beliefs:
        assert self.told is not None
        mean, std = self.told.mean.copy(), self.told.std.copy()
        measured = search.measured
        mean[:, measured] = np.log([search.time_s[measured], search.power_w[measured]])
        std[:, measured] = 0.0
        return replace(self.told, mean=mean, std=std)


@dataclass(frozen=True)
class _Judge(Judge):
    knowing: _Knowing | None = None

    def make(self, seed: int) -> _Knowing:
        """The solver that knows."""
        assert self.knowing is not None
        return self.knowing


def of_all_others(replay: Replay) -> Beliefs:
    """What is believed of training in each mode of a table by all other rows."""
    time_s, power_w = replay.record.time_s[:, 0], replay.record.power_w[:, 0]
    table = MeasurementTable(replay.candidates.modes, None, time_s, power_w, "all")
    fitted = GaussianPredictor(replay.candidates.space.name, references=()).fit(table).posterior_
    mean = np.log([time_s, power_w]) - fitted.loo_error
    nowhere = np.zeros((len(time_s), 1), dtype=bool)
    one = np.zeros(1, dtype=np.int64)
    return Beliefs(one, mean[..., None], fitted.loo_std[..., None], nowhere)


def floor(path: Path, board: Board, cap: int) -> dict[str, Any]:
    """The row of a table."""
    bounds = Bounds.parse("train", {}, "rate", False)
    replay = load_replay("train", {"train": str(path)}, board, "published")
    judge = _Judge("default", replay, (), cap, 0, knowing=_Knowing(told=of_all_others(replay)))
    found = evaluate(judge, bounds, solvable(replay, bounds.problems(())), 1)
    return {"table": path.name, **found}


@click.command(help=__doc__)
@click.argument("tables", nargs=-1, required=True)
@click.option("--board", default="orin-agx", show_default=True, help="Board of all tables.")
@click.option("--cap", default=10, show_default=True, type=click.IntRange(min=1))
def main(tables: Sequence[str], board: str, cap: int) -> None:
    """Run the benchmark."""
    rows = [floor(Path(path), load_board(board), cap) for path in tables]
    console.print_table(list(_COLUMNS.values()), [[row[name] for name in _COLUMNS] for row in rows])


if __name__ == "__main__":
    console.run(main)
