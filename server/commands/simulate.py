"""`wattfed simulate`: one run on the fleet's virtual clock, and its baselines."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from wattfed.server.commands.options import run_options

if TYPE_CHECKING:
    from wattfed.server.history import FederationResult
    from wattfed.strategies.run_config import RunConfig

_COMPARED_AT = 0.9  # accuracy, of runs without a target

_EXAMPLES = """\b
Examples:
  wattfed simulate
  wattfed simulate --strategy fedcs --power fastest --rounds 30 --seed 1
  wattfed simulate --against random:maxn --against random:slack --target-accuracy 0.9
  wattfed simulate --fleet my-fleet.toml --task cifar10 --data-dir ~/data --json
"""


@click.command(epilog=_EXAMPLES)
@run_options()
@click.option(
    "--against",
    multiple=True,
    metavar="STRATEGY[:POWER]",
    help="Also run this baseline and compare, e.g. random:maxn; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
def simulate(against: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Simulate a federation in this process, on the fleet's virtual clock.

    Runs are compared at the target accuracy, 0.9 where none is given, or at what all reached.
    Every simulated Jetson stays within its power limit and energy budget; time and energy are
    those of the charged workload on the board's twin. Results go to OUT_DIR/NAME.
    """
    from wattfed.server.simulation import checked, run_checked
    from wattfed.strategies.run_config import RunConfig

    ours = RunConfig(**options)
    configs = [checked(c) for c in (ours, *(_baseline(ours, text) for text in against))]
    results = [_with_progress(config, run_checked, quiet=as_json) for config in configs]
    _finish(results, ours.target_accuracy or _COMPARED_AT, as_json)


def _baseline(ours: RunConfig, text: str) -> RunConfig:
    from wattfed.strategies.catalogue import split_power

    strategy, power = split_power(text)
    name = f"{ours.run_name}/against-{re.sub('[:/]', '-', text)}"
    return replace(ours, strategy=strategy, power=power or ours.power, name=name)


def _with_progress(config: RunConfig, run: Any, quiet: bool) -> FederationResult:
    from wattfed.server.console import RunProgress

    if quiet:
        return run(config)
    title = f"{config.task} with {config.strategy} ({config.power}), charged as {config.workload}"
    with RunProgress(title, config.rounds) as progress:
        return run(config, progress.show)


def _finish(results: list[FederationResult], target_accuracy: float, as_json: bool) -> None:
    from wattfed.server.console import (
        SUMMARY_HEADER,
        common_target,
        comparison,
        label,
        summary_rows,
    )
    from wattfed.server.history import summary
    from wattfed.server.plots import plot_accuracy

    folder = results[0].folder
    plot = folder / "accuracy.png"
    runs = {label(result): result.rows for result in results}
    plot_accuracy(runs, results[0].config.workload, plot)
    if as_json:
        console.print_json(
            [{**summary(r.config, r.rows, r.ledger), "folder": str(r.folder)} for r in results]
        )
        return
    target = common_target(results, target_accuracy)
    console.print_table(SUMMARY_HEADER, summary_rows(results, target))
    click.echo(
        f"* until accuracy {target:.3f}; the fleet's time and energy on its virtual clock, "
        f"minibatches charged as {results[0].config.workload}"
    )
    for other in results[1:]:
        for line in comparison(results[0], other, target):
            click.echo(line)
    click.echo(f"results: {folder.resolve()}")
