"""Client-selection strategies side by side: time and energy to a target accuracy.

    python -m benchmarks.select --strategies random,oort,pace --power maxn,slack --per-round 3,5,10

Every strategy with every power policy, number of clients a round and seed. Times and energies are
the fleet's on its virtual clock, charged on the boards' twins; they are no Jetson's.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from powerctl import console
from powerctl.stopping import stopping_cleanly
from wattfed.server.commands.options import comparison_options
from wattfed.server.comparison.comparison_progress import ComparisonProgress, print_tables
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.running import run_comparison, runs_at_once


@click.command(help=__doc__)
@comparison_options
@click.option("--out", help="Keep the runs in this folder, and go on with those it lacks.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    comparison: Comparison, baseline: str, jobs: int, out: str | None, json_path: str | None
) -> None:
    """Run the benchmark."""
    with ExitStack() as stack:
        path = out or stack.enter_context(tempfile.TemporaryDirectory())
        folder = ComparisonFolder(Path(path))
        charged = comparison.base.workload
        shown = ComparisonProgress(path, runs_at_once(comparison.base, jobs), is_kept=bool(out))
        with stopping_cleanly(partial(shown.so_far, baseline, charged)), shown:
            whole = run_comparison(folder, comparison, jobs, shown.started, shown.show, shown.part)
        measures = measures_of(folder, whole)
    print_tables(measures, baseline, charged)
    if json_path:
        rows = [row.record() for row in measures]
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
