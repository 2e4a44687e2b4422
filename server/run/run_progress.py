"""What people see of a run: progress on stderr, a summary table on stdout, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from flwr.app import MessageType

from powerctl import console
from powerctl.durable import write_output
from powerctl.figures import png_of
from powerctl.progress import Progress
from powerctl.quantities import spoken
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import (
    FederationResult,
    RoundRow,
    final_value,
    spending_to,
    totals,
    troubles_of,
)
from wattfed.server.run.judging import common_level, comparison, judge_result
from wattfed.strategies.run_config import RunConfig

_PARTS = {
    MessageType.QUERY: "offers",
    MessageType.TRAIN: "clients trained",
    MessageType.EVALUATE: "clients evaluated",
}


def row_line(row: RoundRow) -> str:
    """One round in one line; time and energy are the fleet's, on its virtual clock."""
    value = "not evaluated"
    if row.value is not None:
        value = f"{row.target.name} {row.target.printed(row.value)}"
    if row.entry is None:
        return f"initial model  {value}"
    entry = row.entry
    clients = " ".join(map(str, entry.clients)) or "none"
    wrong = troubles_of(entry)
    return (
        f"round {row.round:3d}  {value}  "
        f"round {spoken(entry.round_time_s, 's'):>8}  {spoken(entry.energy_j, 'J'):>7}  "
        f"clients {clients}{f'  {wrong}' if wrong else ''}"
    )


class RunProgress:
    """A run as it goes on: a line when a round ends, and where it stands within one.

    Used as a context manager around the run.

    Parameters
    ----------
    config : RunConfig
        The run.
    title : str
        A first line, before the one that says where its results are.
    say : callable, optional
        Takes the lines, in place of stderr.
    """

    def __init__(
        self, config: RunConfig, title: str = "", say: Callable[[str], object] | None = None
    ) -> None:
        self._progress = Progress("rounds", config.rounds, say=say)
        where = f"results: {Path(config.out_dir, config.run_name).resolve()}"
        self._lines = [title, where] if title else [where]
        self._round: int | None = None

    def __enter__(self) -> RunProgress:
        self._progress.__enter__()
        for line in self._lines:
            self.say(line)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__(*exception)

    def say(self, line: str) -> None:
        """Print a line that stays above the bar."""
        self._progress.say(line)

    def show(self, row: RoundRow) -> None:
        """Tell of a round that ended, or of the one after which a run goes on."""
        if self._round is None:
            self._progress.begin(row.round)
            if row.round:
                self.say(f"goes on after round {row.round}")
        self._round = row.round
        self.say(row_line(row))
        self._progress.update(row.round, note="")

    def part(self, what: str, done: int, of: int) -> None:
        """Tell how many clients of how many have done a part of the round that goes on."""
        before = self._round or 0
        trained = done / of if what == MessageType.TRAIN else 0.0
        note = f"round {before + 1}: {done} of {of} {_PARTS.get(what, what)}"
        self._progress.update(before + trained, note=note)


def print_results(results: Sequence[FederationResult]) -> None:
    """Print finished runs side by side, a judgement of each, and the first beside each other."""
    level, target, names = common_level(results), results[0].target, _names(results)
    console.print_table(
        (
            *("run", target.name, "rounds*", "time* (s)", "energy* (kJ)", "total (s)"),
            *("total (kJ)", "waiting (kJ)", "over power", "over energy", "stepped down"),
        ),
        [_row(name, result, level) for name, result in zip(names, results, strict=True)],
    )
    until = "no level that all have learned and hold over three rounds"
    if level is not None:
        until = f"until {target.name} {target.printed(level)} is held (mean of three rounds)"
    charged = " or ".join(dict.fromkeys(result.charged for result in results))
    click.echo(
        f"* {until}; the fleet's time and energy on its virtual clock, minibatches charged as "
        f"{charged}"
    )
    for name, result in zip(names, results, strict=True):
        called = f"{name}: " if results[1:] else ""
        click.echo(called + " ".join(judge_result(result).sentences()))
    for name, other in zip(names[1:], results[1:], strict=True):
        for line in comparison(results[0], other, level, (names[0], name)):
            click.echo(line)


def _names(results: Sequence[FederationResult]) -> list[str]:
    """What tells runs apart: their policies, or where some have the same their folders."""
    policies = [Contender.of(result.config).policy for result in results]
    if len(set(policies)) == len(policies):
        return policies
    return [result.folder.name for result in results]


def _row(name: str, result: FederationResult, level: float | None) -> tuple[object, ...]:
    """A run in the table: * is until the level is held."""
    until: tuple[object, ...] = ("-",) * 3
    if level is not None:
        spent = spending_to(result.rows, result.minibatches, level)
        until = (spent.rounds, spent.time_s, spent.energy_j / 1e3)
    counted = ("power_violations", "budget_violations", "guarded")
    total = totals(result.ledger.entries, ("wait_energy_j", *counted))
    return (
        name,
        result.target.in_table(final_value(result.rows)),
        *until,
        result.ledger.clock_s,
        result.ledger.energy_j / 1e3,
        total["wait_energy_j"] / 1e3,
        *(total[key] for key in counted),
    )


def plot_target(runs: Mapping[str, Sequence[RoundRow]], workload: str, path: Path) -> None:
    """Write a PNG with two panels, a line per run; the title names the charged workload."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    axes = (
        ("time (s)", "clock_s", 1.0),
        ("energy (kJ)", "total_energy_j", 1e3),
    )
    for panel, (name, column, unit) in zip(panels, axes, strict=True):
        for run, rows in runs.items():
            evaluated = [row for row in rows if row.value is not None]
            spent = [getattr(row, column) / unit for row in evaluated]
            panel.plot(spent, [row.value for row in evaluated], marker=".", label=run)
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    name = next(iter(runs.values()))[-1].target.name
    panels[0].set_ylabel(f"test {name}", parse_math=False)
    panels[0].legend()
    figure.suptitle(f"simulated fleet on its virtual clock, charged as {workload}", fontsize=10)
    write_output(path, png_of(figure, dpi=120))
