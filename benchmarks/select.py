"""Client-selection strategies side by side: time and energy until a target is held.

    python -m benchmarks.select --strategies random,oort,pace --power maxn,slack --per-round 3,5,10
    python -m benchmarks.select --task digits,fashion-mnist --skew dirichlet:0.3,iid --budget-j auto

Every strategy with every power policy, number of clients a round and seed, in a cell for each
task, skew and fleet (several with commas). Times and energies are the fleet's on its virtual clock,
charged on the boards' twins; they are no Jetson's.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.cells import budget_by, cells_of, limited, reference_of, rows_of
from powerctl import console
from powerctl.durable import write_output
from powerctl.quantities import parse
from powerctl.stopping import stopping_cleanly
from wattfed.server.commands.options import comparison_options
from wattfed.server.comparison.comparison_progress import ComparisonProgress, print_tables
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import measures_of
from wattfed.server.comparison.running import run_comparison, runs_at_once
from wattfed.server.engines.simulation import charged_words

_BUDGET = """The same joules for every run, which goes on past its target until they are spent,
however many rounds that takes; auto: 1.5 times what random at MAXN takes to the target."""


@click.command(help=__doc__)
@comparison_options(leave_out=["budget-j"])
@click.option("--budget-j", "budget", default="", metavar="J|auto", help=_BUDGET)
@click.option("--first-seed", type=click.IntRange(0), help="In place of --seed.")
@click.option("--ideal", is_flag=True, help="Rounds without what real ones take beside training.")
@click.option("--out", help="Keep the runs in this folder, and go on with those it lacks.")
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    comparison: Comparison,
    baseline: str,
    jobs: int,
    budget: str,
    first_seed: int | None,
    ideal: bool,
    out: str | None,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    if first_seed is not None:
        seeds = range(first_seed, first_seed + len(comparison.seeds))
        comparison = replace(comparison, seeds=tuple(seeds))
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        path = Path(out or stack.enter_context(tempfile.TemporaryDirectory()))
        for name, cell in cells_of(comparison, ideal).items():
            if budget == "auto":
                reference = reference_of(cell)
                folder = _run(path / name / "reference", reference, jobs)
                cell = limited(cell, budget_by(folder, reference))
            elif budget:
                cell = limited(cell, parse(budget, "energy", "--budget-j"))
            folder = _run(path / name / "cell", cell, jobs)
            click.echo(f"\n{name}")
            print_tables(measures_of(folder, cell), baseline, charged_words(cell.runs()[0]))
            rows += rows_of(folder, cell)
    if json_path:
        write_output(Path(json_path), (json.dumps(rows, indent=2) + "\n").encode())


def _run(path: Path, comparison: Comparison, jobs: int) -> ComparisonFolder:
    """Run whatever a folder lacks of a comparison."""
    folder = ComparisonFolder(path)
    shown = ComparisonProgress(path, runs_at_once(comparison.base, jobs))
    with stopping_cleanly(shown.saved), shown:
        run_comparison(folder, comparison, jobs, shown.started, shown.show, shown.part)
    return folder


if __name__ == "__main__":
    console.run(main)
