"""What power modes bring by themselves: joules of a minibatch, for equal clients, number and work.

    python -m benchmarks.power_modes --table T.csv --table U.csv --board orin-agx --limit 30

Nothing is selected here: one board trains one workload. Of all modes in a table (or of the twin,
with `--workload`) it tells what a minibatch takes at MAXN, in the fastest mode within the limit, in
the one of least energy within it, and in the one that is chosen after measuring some of the modes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import SAFETY_DEVIATIONS
from powerctl.measurement import MeasurementTable
from powerctl.modes import IntArray, ModeArrays, PowerMode
from powerctl.powertrain.design import DesignedModes
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.progress import Progress
from powerctl.workload import load_workload

_THINNED = 6  # values of each axis of a twin: some thousand modes, as in a table


def compared(
    table: MeasurementTable, board: Board, limit_w: float, measured: int, seed: int
) -> dict[str, Any]:
    """The row of one workload: joules and seconds of a minibatch by who chooses the mode."""
    modes = list(table.modes.objects())
    within = np.flatnonzero(table.power_w <= limit_w)
    if not len(within):
        raise InvalidInput(f"{table.source}: no mode within {limit_w:g} W")
    maxn = modes.index(max(modes))  # of a grid, the highest of each axis
    chosen = _chosen(table, board, limit_w, measured, seed)
    rows = {
        "maxn": maxn,
        "fastest": int(within[table.time_s[within].argmin()]),
        "chosen": chosen,
        "least": int(within[table.energy_j[within].argmin()]),
    }
    found: dict[str, Any] = {"workload": Path(table.source).stem, "board": board.name}
    found |= {"limit_w": limit_w, "modes": len(modes), "measured": measured}
    for name, row in rows.items():
        found[f"{name}_j"], found[f"{name}_s"] = (
            float(table.energy_j[row]),
            float(table.time_s[row]),
        )
    found["chosen_mode"], found["least_mode"] = str(modes[chosen]), str(modes[rows["least"]])
    for than in ("maxn", "fastest"):
        found[f"saved_of_{than}_pct"] = 100 * (1 - found["chosen_j"] / found[f"{than}_j"])
        found[f"time_of_{than}"] = found["chosen_s"] / found[f"{than}_s"]
    found["above_least_pct"] = 100 * (found["chosen_j"] / found["least_j"] - 1)
    found["over_limit_w"] = max(0.0, float(table.power_w[chosen]) - limit_w)
    return found


def _chosen(table: MeasurementTable, board: Board, limit_w: float, measured: int, seed: int) -> int:
    """The mode that is predicted to take least energy and surely stays within the limit."""
    known = _designed(table, board, measured, seed)
    predictor = GaussianPredictor(board.name, kind="train")
    predictor.fit(table.take(known))
    predicted = predictor.predict(table.modes)
    time_s, bound_w = predicted.time_s.copy(), predicted.power_bound_w(SAFETY_DEVIATIONS)
    energy_j = predicted.energy_j.copy()
    time_s[known], bound_w[known] = table.time_s[known], table.power_w[known]
    energy_j[known] = table.energy_j[known]
    surely = np.flatnonzero(bound_w <= limit_w)
    if not len(surely):
        return int(bound_w.argmin())
    return int(surely[energy_j[surely].argmin()])


def _designed(table: MeasurementTable, board: Board, measured: int, seed: int) -> IntArray:
    """The rows of the modes that are measured: those that leave least uncertainty."""
    row_of = {mode: row for row, mode in enumerate(table.modes.objects())}
    design = DesignedModes(
        GaussianPredictor(board.name, kind="train"), table.modes, measured, random_state=seed
    )
    done: dict[PowerMode, int] = {}
    while found := design.choose(table.take(_rows(done)), set(done)):
        done |= {mode: row_of[mode] for mode in found}
    return _rows(done)


def _rows(done: dict[PowerMode, int]) -> IntArray:
    return np.array(sorted(done.values()), dtype=np.int64)


def tables(
    paths: tuple[str, ...], workloads: tuple[str, ...], board: Board
) -> Iterator[MeasurementTable]:
    """The tables that are asked for, of measurements and of the twin."""
    for path in paths:
        yield MeasurementTable.read(path, board.space)
    for name in workloads:
        workload, space = load_workload(name), board.space.thinned(_THINNED)
        if workload.signature is None:
            raise InvalidInput(f"{name} has no signature: the twin does not know what it costs")
        modes = ModeArrays(*space.arrays)
        cost = minibatch_cost(board.hardware, workload.signature, *modes, workload.batch_size)
        yield MeasurementTable(modes, None, cost.time_s, cost.power_w, source=f"twin of {name}")


@click.command(help=__doc__)
@click.option("--table", "paths", multiple=True, metavar="FILE.csv", help="Measured; repeat.")
@click.option("--workload", "workloads", multiple=True, help="On the board's twin; repeat.")
@click.option("--board", "board_name", default="orin-agx", show_default=True)
@click.option("--limit", "limit_w", type=float, help="Watts of the module; none by default.")
@click.option("--measured", type=click.IntRange(6), default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    paths: tuple[str, ...],
    workloads: tuple[str, ...],
    board_name: str,
    limit_w: float | None,
    measured: int,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    board, most_w = load_board(board_name), math.inf if limit_w is None else limit_w
    asked = list(tables(paths, workloads, board))
    if not asked:
        raise InvalidInput("nothing to compare: give --table FILE.csv, or --workload NAME")
    rows = []
    with Progress("workloads", len(asked)) as shown:
        for table in asked:
            rows.append(compared(table, board, most_w, measured, seed))
            shown.update(len(rows))
    columns = (
        *("maxn_j", "fastest_j", "chosen_j", "least_j", "saved_of_maxn_pct", "time_of_maxn"),
        *("saved_of_fastest_pct", "time_of_fastest", "above_least_pct"),
    )
    console.print_table(
        ("workload", *columns), [[r["workload"], *(r[c] for c in columns)] for r in rows]
    )
    if json_path:
        text = json.dumps([{**row, "limit_w": limit_w} for row in rows], indent=2)
        Path(json_path).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
