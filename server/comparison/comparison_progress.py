"""What people see of a comparison: a bar and a line per run on stderr, tables on stdout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click

from powerctl import console
from powerctl.errors import UnknownName
from powerctl.progress import Progress
from powerctl.statistics import Estimate
from powerctl.stopping import this_command
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import RunMeasures, measures_of
from wattfed.server.comparison.running import Finished, checked_runs
from wattfed.server.comparison.table import Line, Table, chosen_baseline, policies
from wattfed.server.comparison.verdict import standings, verdict
from wattfed.server.engines.simulation import charged_words, plan_of
from wattfed.server.run.contender import Contender
from wattfed.server.run.participants import task_line
from wattfed.strategies.run_config import RunConfig


class ComparisonProgress(Progress):
    """The runs of a comparison: a line for each that ends, and where those under way stand.

    Parameters
    ----------
    out : str
        Folder of the comparison.
    at_once : int
        Runs at a time.
    is_kept : bool
        Whether the folder stays when the comparison has ended.
    """

    def __init__(self, out: str | Path, at_once: int = 1, is_kept: bool = True) -> None:
        super().__init__("runs", at_once=at_once)
        self._out = Path(out).resolve()
        self._is_kept = is_kept
        self._runs = self._ended = 0
        self._under_way: dict[str, float] = {}  # the share of each run's rounds that is over

    def started(self, runs: int, finished: int) -> None:
        """Say how much there is to do."""
        self._runs, self._ended = runs, finished
        self.begin(finished, runs)
        kept = f", {finished} of them finished earlier" if finished else ""
        self.say(f"{runs} runs{kept}, results: {self._out}")

    def part(self, config: RunConfig, rounds: int) -> None:
        """Tell how many rounds of a run are over."""
        self._under_way[config.run_name] = rounds / config.rounds
        done = self._ended + sum(self._under_way.values())
        of = "" if config.budget_j else f" of {config.rounds}"
        self.update(done, note=f"{_named(config)}, round {rounds}{of}")

    def show(self, done: Finished) -> None:
        """Tell of a run that ended."""
        self._under_way.pop(done.config.run_name, None)
        self._ended += not done.failure
        self.say(
            f"{_named(done.config)}: "
            + (f"failed: {done.failure}" if done.failure else done.outcome)
        )
        self.update(self._ended + sum(self._under_way.values()), note="")

    def saved(self) -> str:
        """What is on disc, and the command that goes on with the rest."""
        kept = f"{self._ended} of {self._runs} runs are" if self._runs else "no run is"
        if not self._is_kept:
            return f"{kept} finished; to keep them, and go on: {this_command('--out', 'FOLDER')}"
        return f"{kept} finished in {self._out}; to go on: {this_command()}"

    def so_far(self, baseline: str, charged: str) -> str:
        """Print the tables of the runs that are finished, for who stops the others; gives `saved`.

        The first policy is the baseline where none of the one that was wanted is among them.
        """
        folder = ComparisonFolder(self._out)
        if self._runs and (measures := measures_of(folder, folder.asked()[0])):
            try:
                print_tables(measures, baseline, charged)
            except UnknownName:
                print_tables(measures, "", charged)
        return self.saved()


def tell_plan(comparison: Comparison) -> str:
    """Print what will be compared, and what speaks against it, before the first run.

    Returns what minibatches are charged as, in words.
    """
    runs = checked_runs(comparison)
    plans = {run.per_round: plan_of(run) for run in runs if Contender.of(run).power != "maxn"}
    charged = charged_words(runs[0])
    click.echo(_headline(comparison, runs[0].min_nodes, charged), err=True)
    for warning in dict.fromkeys(text for plan in plans.values() for text in plan.warnings):
        click.echo(f"warning: {warning}", err=True)
    return charged


def _headline(comparison: Comparison, clients: int, charged: str) -> str:
    """A comparison in a line."""
    base, runs = comparison.base, comparison.runs()
    policies = dict.fromkeys(Contender.of(run).policy for run in runs)
    numbers = " or ".join(map(str, comparison.per_round))
    seeds = len(comparison.seeds)
    goal = f"{comparison.metric or 'accuracy'}={','.join(f'{x:g}' for x in comparison.targets)}"
    until = f"all rounds, counted until {goal}" if comparison.all_rounds else f"until {goal}"
    return (
        f"{task_line(base, clients, charged, base.fleet)}; {len(policies)} policies, up to "
        f"{numbers} a round, {base.rounds} rounds, {seeds} seed{'s' * (seeds > 1)}, {until}"
    )


def _named(config: RunConfig) -> str:
    contender = Contender.of(config)
    return f"{contender.policy}, {contender.per_round} a round, seed {config.seed}"


def print_tables(measures: Sequence[RunMeasures], baseline_text: str, charged: str) -> None:
    """The comparison at each level that a run reached, and in the end what it comes to."""
    baseline = chosen_baseline(baseline_text, measures)
    name = str(baseline)
    target = measures[0].target
    header = (
        *("strategy", "power", "per round", "took", "reached", "rounds", "time (s)", "energy (kJ)"),
        *("times less energy", "95 %", "times less time", target.name, "fairness", "violations"),
    )
    for standing in standings(measures):
        table = Table(standing.measures, standing.level, baseline)
        lines = table.at_equal_numbers()
        click.echo(f"{standing.words}, beside {name} with as many clients a round:")
        console.print_table(header, [_row(line) for line in lines])
        if len(lines) > len(policies(measures)):
            click.echo(f"\nat each policy's best number, beside {name} at its own:")
            console.print_table(header, [_row(line) for line in table.at_best_numbers()])
        click.echo()
    click.echo(
        f"means over seeds; took: clients in a round; times less: how many times as much {name} "
        f"takes, paired by seed,\nwith its interval; the fleet's time and energy on its virtual "
        f"clock, waiting within a round included, minibatches\ncharged as {charged} on the "
        "boards' twins"
    )
    click.echo(verdict(measures, table).sentence)


def _row(line: Line) -> tuple[object, ...]:
    return (
        *line.contender,
        line.clients.mean,
        f"{line.reached}/{line.seeds}",
        line.rounds.mean,
        line.time_s.mean,
        line.energy_j.mean / 1e3,
        line.less_energy.mean,
        _interval(line.less_energy),
        line.less_time.mean,
        line.final.mean,
        line.fairness.mean,
        line.budget_violations + line.latency_violations,
    )


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "-"
    return f"{estimate.low:.3g} to {estimate.high:.3g}"
