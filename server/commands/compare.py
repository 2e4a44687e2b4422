"""`wattfed compare` and `wattfed report`: policies side by side, and the page on them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import accelerator_option
from powerctl.progress import Progress
from powerctl.stopping import stopping_cleanly
from wattfed.server.commands.dry_run import dry_run_option, print_clients
from wattfed.server.commands.options import comparison_options

if TYPE_CHECKING:
    from wattfed.server.comparison.grid import Comparison

_COMPARE_EXAMPLES = """\b
Examples:
  wattfed compare
  wattfed compare --strategies random,oort,pace --power maxn,slack --per-round 3,5,10 --seeds 5
  wattfed compare --fleet twenty-jetsons --per-round 6 --rounds 40 --target-accuracy 0.85,0.9
  wattfed compare --strategies random,oort(clip=0.9) --baseline random:slack --out runs/clipped
"""
_REPORT_EXAMPLES = """\b
Examples:
  wattfed report runs/comparison
  wattfed report runs/comparison --baseline oort:maxn
  wattfed report runs/digits-pace-slack-seed0
"""


@click.command("compare", epilog=_COMPARE_EXAMPLES)
@comparison_options()
@accelerator_option
@click.option(
    "--out", default="runs/comparison", show_default=True, help="Folder of the runs and the report."
)
@dry_run_option
@click.option("--json", "as_json", is_flag=True, help="Print every run's measures as JSON.")
def compare_command(
    comparison: Comparison, baseline: str, jobs: int, out: str, dry_run: bool, as_json: bool
) -> None:
    """Compare policies x power policies x clients a round x seeds, and write a report.

    Finished runs are kept: after a kill, the same command runs only the rest. Ctrl-C prints the
    table so far. You can add policies, numbers of clients and seeds to a folder later. In the
    folder of a Flower app, options that you leave out (but for policies) come from its
    pyproject.toml.
    """
    from wattfed.server.comparison.comparison_progress import (
        ComparisonProgress,
        print_tables,
        tell_plan,
    )
    from wattfed.server.comparison.running import checked_runs, compare, runs_at_once

    charged = tell_plan(comparison)
    if dry_run:
        runs = checked_runs(comparison)
        print_clients(runs[0])
        click.echo(f"{len(runs)} runs would go to: {Path(out).resolve()}")
        return
    progress = ComparisonProgress(out, runs_at_once(comparison.base, jobs))
    stopped = progress.saved if as_json else partial(progress.so_far, baseline, charged)
    with stopping_cleanly(stopped), progress:
        result = compare(
            comparison,
            out=out,
            baseline=baseline,
            jobs=jobs,
            on_begin=progress.started,
            on_run=progress.show,
            on_round=progress.part,
        )
    if as_json:
        console.print_json([measure.record() for measure in result.measures])
        return
    print_tables(result.measures, baseline, charged)
    click.echo(f"report: {result.report.resolve()}")


@click.command(epilog=_REPORT_EXAMPLES)
@click.argument("folder")
@click.option(
    "--baseline",
    default="",
    metavar="STRATEGY[:POWER]",
    help="What ratios are to; by default random:maxn.",
)
def report(folder: str, baseline: str) -> None:
    """Write FOLDER/report.html on a comparison or a run, with runs.csv and runs.jsonl beside it."""
    from wattfed.server.comparison.report import build_report

    with Progress("report"):
        page = build_report(Path(folder), baseline)
    click.echo(f"report: {page.resolve()}")
