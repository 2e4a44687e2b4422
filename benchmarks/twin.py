"""How well the twin's cost model knows measured tables.

    python -m benchmarks.twin ../shared/data/orin_agx_train_resnet18.csv=resnet18-train ...
    python -m benchmarks.twin --board orin-nano FILE.csv --json OUT

Each TABLE[=WORKLOAD] gives a row: mean absolute percentage errors over all of its modes of the
shipped signature, of one refitted to the table (the board's constants are kept), and of one
fitted to a few random modes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.calibration import errors_pct, fit_signature
from powerctl.measurement import MeasurementTable
from powerctl.progress import Progress
from powerctl.workload import load_workload


def evaluate(
    board: Board, path: str, workload: str | None, few: int, runs: int, seed: int
) -> dict[str, object]:
    """The errors of one table."""
    table = MeasurementTable.read(path, board.space)
    shipped = (float("nan"), float("nan"))
    batch_size = 16
    if workload:
        known = load_workload(workload)
        batch_size = known.batch_size
        assert known.signature is not None
        shipped = errors_pct(board.hardware, known.signature, table, batch_size)
    own = fit_signature(board.hardware, table, batch_size, random_state=seed)
    refitted = errors_pct(board.hardware, own, table, batch_size)
    from_few = []
    for run in range(runs):
        picks = np.random.default_rng((seed, run)).permutation(len(table))[:few]
        fitted = fit_signature(board.hardware, table.take(picks), batch_size)
        from_few.append(errors_pct(board.hardware, fitted, table, batch_size))
    median = np.median(from_few, axis=0)
    return {
        "table": Path(path).name,
        "board": board.name,
        "rows": len(table),
        "time_shipped_pct": shipped[0],
        "power_shipped_pct": shipped[1],
        "time_refitted_pct": refitted[0],
        "power_refitted_pct": refitted[1],
        "time_few_pct": float(median[0]),
        "power_few_pct": float(median[1]),
    }


@click.command(help=__doc__)
@click.argument("tables", nargs=-1, required=True)
@click.option("--board", default="orin-agx", show_default=True, help="Board of the tables.")
@click.option("--few", default=10, show_default=True, help="Random rows of the fit to a few.")
@click.option("--runs", default=5, show_default=True, help="Such fits; their median is shown.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    tables: tuple[str, ...], board: str, few: int, runs: int, seed: int, json_path: str | None
) -> None:
    """Run the benchmark."""
    found = load_board(board)
    rows: list[dict[str, Any]] = []
    with Progress("tables", len(tables)) as shown:
        for argument in tables:
            path, _, workload = argument.partition("=")
            shown.update(len(rows), note=Path(path).name)
            rows.append(evaluate(found, path, workload or None, few, runs, seed))
    console.print_table(list(rows[0]), [list(row.values()) for row in rows])
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
