"""`wattfed simulate`: one run on the fleet's virtual clock, and its baselines."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import accelerator_option
from powerctl.stopping import stopping_cleanly, this_command
from wattfed.server.commands.dry_run import dry_run_option, print_run_plan
from wattfed.server.commands.options import asked_run, run_options

if TYPE_CHECKING:
    from wattfed.server.engines.workers import Trains
    from wattfed.server.run.history import FederationResult
    from wattfed.server.run.participants import Participants
    from wattfed.server.run.run_progress import RunProgress
    from wattfed.strategies.run_config import RunConfig

_EXAMPLES = """\b
Examples:
  wattfed simulate
  wattfed simulate --strategy fedcs --power fastest --rounds 30 --seed 1
  wattfed simulate --against random:maxn --against random:slack --target-accuracy 0.9
  wattfed simulate --against random:maxn --target loss=0.5
  wattfed simulate --fleet my-fleet.toml --dry-run
  wattfed simulate --fleet my-fleet.toml --task cifar10 --data-dir ~/data --json
  wattfed simulate --fleet my-fleet.toml --per-round 100 --workers ray:10.0.0.1:6379
"""


@click.command("simulate", epilog=_EXAMPLES)
@run_options()
@accelerator_option
@click.option(
    "--against",
    multiple=True,
    metavar="STRATEGY[:POWER]",
    help="Also run this baseline and compare, such as random:maxn; can be repeated.",
)
@dry_run_option
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON.")
def simulate_command(
    against: tuple[str, ...], dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Simulate a federation in this process, on the fleet's virtual clock.

    Every simulated Jetson stays within its power limit and energy budget. Time and energy are those
    of the charged workload on a simulated board. Results go to OUT_DIR/NAME. Runs are compared up
    to the target, or to the best value that all of them hold (mean of three rounds). In the folder
    of a Flower app, options that you leave out come from its pyproject.toml.
    """
    from wattfed.server.engines.simulation import checked_config
    from wattfed.server.engines.trainers import trains
    from wattfed.server.run.results import placed

    ours = placed(asked_run(options))
    configs = [checked_config(c) for c in (ours, *(_baseline(ours, text) for text in against))]
    if dry_run:
        return print_run_plan(configs[0])
    with stopping_cleanly(lambda: saved(configs)), closing(trains(ours)) as trainer:
        results = [_with_progress(config, trainer, quiet=as_json) for config in configs]
        _finish(results, as_json)


def saved(configs: list[RunConfig]) -> str:
    """How far runs have come that were stopped, and the command that goes on."""
    from wattfed.server.run.results import rounds_saved

    ours, told = configs[0], []
    for config in configs:
        folder = Path(config.out_dir, config.run_name)
        saved = rounds_saved(folder)
        if saved is not None:
            told.append(f"{folder.resolve()} holds {saved} rounds of {config.rounds}")
    if not told:
        return f"no round is saved; to begin again: {this_command()}"
    name = ("--name", ours.run_name) if ours.name else ()
    return f"{', '.join(told)}; to go on: {this_command(*name, '--resume')}"


def _baseline(ours: RunConfig, text: str) -> RunConfig:
    from wattfed.strategies.policies.catalogue import split_power

    strategy, power = split_power(text)
    name = f"{ours.run_name}/against-{re.sub('[:/]', '-', text)}"
    return replace(ours, strategy=strategy, power=power or ours.power, name=name)


def _with_progress(config: RunConfig, trainer: Trains, quiet: bool) -> FederationResult:
    from wattfed.server.engines.simulation import charged_words, run_checked
    from wattfed.server.run.participants import headline
    from wattfed.server.run.run_progress import RunProgress

    if quiet:
        return run_checked(config, trainer=trainer)
    said = headline(config, config.min_nodes, charged_words(config), config.fleet)
    with RunProgress(config, said) as progress:
        return run_checked(
            config, progress.show, progress.part, lambda plan: _warn(plan, progress), trainer
        )


def _warn(plan: Participants, progress: RunProgress) -> None:
    for warning in plan.warnings:
        progress.say(f"warning: {warning}")


def _finish(results: list[FederationResult], as_json: bool) -> None:
    from wattfed.server.run.contender import Contender
    from wattfed.server.run.history import finite, summary
    from wattfed.server.run.run_progress import plot_target, print_results

    folder, target = results[0].folder, results[0].target
    plot = folder / ("accuracy.png" if target.name == "accuracy" else "target.png")
    runs = {Contender.of(result.config).policy: result.rows for result in results}
    plot_target(runs, results[0].charged, plot)
    if as_json:
        summaries = [
            finite(summary(r.config, r.rows, r.ledger, r.participants.charged)) for r in results
        ]
        told = zip(summaries, results, strict=True)
        console.print_json([{**one, "folder": str(result.folder)} for one, result in told])
        return
    print_results(results)
    click.echo(f"results: {folder.resolve()}")
