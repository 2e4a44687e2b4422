"""What people see of a run: a bar and a line per round on stderr, a summary table on stdout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import MessageType

from powerctl.progress import Progress
from wattfed.server.comparison.grid import Contender
from wattfed.server.history import (
    FederationResult,
    RoundRow,
    Spending,
    best_value,
    final_value,
    spending_to,
)
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

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
    troubles = [
        (entry.budget_misses, "over limit"),
        (entry.guarded, "stepped down"),
        (entry.late, "late"),
        (entry.partial, "partial"),
        (entry.declined, "declined"),
        (entry.failed, "failed"),
        (entry.rejected, "rejected"),
    ]
    notes = "".join(f"  {count} {what}" for count, what in troubles if count)
    return (
        f"round {row.round:3d}  {value}  "
        f"round {entry.round_time_s:6.1f} s  {entry.energy_j / 1e3:6.2f} kJ  "
        f"budget misses {entry.budget_misses}  clients {clients}{notes}"
    )


class RunProgress:
    """A run as it goes on: a line when a round ends, and where it stands within one.

    Used as a context manager around the run.

    Parameters
    ----------
    title : str
        Its first line; the second says where its results are.
    config : RunConfig
        The run.
    say : callable, optional
        Takes the lines, in place of stderr.
    """

    def __init__(
        self, title: str, config: RunConfig, say: Callable[[str], object] | None = None
    ) -> None:
        self._progress = Progress("rounds", config.rounds, say=say)
        self._lines = [title, f"results: {Path(config.out_dir, config.run_name).resolve()}"]
        self._round: int | None = None

    def __enter__(self) -> RunProgress:
        self._progress.__enter__()
        for line in self._lines:
            self._progress.say(line)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__(*exception)

    def show(self, row: RoundRow) -> None:
        """Tell of a round that ended, or of the one after which a run goes on."""
        if self._round is None:
            self._progress.begin(row.round)
            if row.round:
                self._progress.say(f"goes on after round {row.round}")
        self._round = row.round
        self._progress.say(row_line(row))
        self._progress.update(row.round, note="")

    def part(self, what: str, done: int, of: int) -> None:
        """Tell how many clients of how many have done a part of the round that goes on."""
        before = self._round or 0
        trained = done / of if what == MessageType.TRAIN else 0.0
        note = f"round {before + 1}: {done} of {of} {_PARTS.get(what, what)}"
        self._progress.update(before + trained, note=note)


def label(result: FederationResult) -> str:
    """How a run is called in tables and plots."""
    return Contender.of(result.config).policy


def summary_header(target: Target) -> tuple[str, ...]:
    """The columns of `summary_rows`."""
    return (
        *("run", target.name, "rounds*", "time* (s)", "energy* (kJ)"),
        *("total (s)", "total (kJ)", "waiting (kJ)", "over power", "stepped down", "over budget"),
    )


def summary_rows(results: Sequence[FederationResult], level: float) -> list[tuple[object, ...]]:
    """The runs side by side, in the columns of `summary_header`; * is until a level."""
    return [_summary_row(result, level) for result in results]


def _summary_row(result: FederationResult, level: float) -> tuple[object, ...]:
    spent = spending_to(result.rows, result.minibatches, level)
    until = (spent.rounds, spent.time_s, spent.energy_j / 1e3) if spent.reached else ("-",) * 3
    entries = result.ledger.entries
    return (
        label(result),
        result.target.in_table(final_value(result.rows)),
        *until,
        result.ledger.clock_s,
        result.ledger.energy_j / 1e3,
        sum(entry.wait_energy_j for entry in entries) / 1e3,
        sum(entry.power_violations for entry in entries),
        sum(entry.guarded for entry in entries),
        sum(entry.budget_violations for entry in entries),
    )


def common_level(results: Sequence[FederationResult], level: float) -> float:
    """A level of the target, or what all runs reached if one of them fell short of it."""
    bests = [value for value in map(best_value, (r.rows for r in results)) if value is not None]
    return results[0].target.easiest_first([level, *filter(math.isfinite, bests)])[0]


def energy_factors(mine: Spending, theirs: Spending) -> dict[str, float]:
    """What the ratio of their energy to mine is made of; the factors' product is the ratio."""
    return {
        "fewer_minibatches": theirs.minibatches / mine.minibatches,
        "fewer_joules_per_minibatch": theirs.minibatch_j / mine.minibatch_j,
        "less_waiting": theirs.waiting_factor / mine.waiting_factor,
    }


def comparison(ours: FederationResult, other: FederationResult, level: float) -> list[str]:
    """In words: energy and time of both at an equal level, and what the ratio is made of."""
    target = ours.target
    mine, theirs = (spending_to(r.rows, r.minibatches, level) for r in (ours, other))
    if not (mine.reached and theirs.reached):
        return [f"A run has no value of {target.name}: there is nothing to compare."]
    if not (mine.minibatches and theirs.minibatches):
        higher = "higher" if target.rises else "lower"
        return [
            f"The initial model has {target.printed(level)}, and a run got no {higher}: after more "
            "rounds there may be something to compare."
        ]
    ratio = theirs.energy_j / mine.energy_j
    work, modes, waiting = energy_factors(mine, theirs).values()
    return [
        f"At equal {target.name} ({target.printed(level)}) {label(ours)} used {ratio:.2f} times "
        f"less energy than {label(other)}: {mine.energy_j / 1e3:.3g} against "
        f"{theirs.energy_j / 1e3:.3g} kJ, in {mine.time_s:.3g} against {theirs.time_s:.3g} s.",
        f"  {ratio:.2f} = {work:.2f} (fewer minibatches) x {modes:.2f} (fewer joules per "
        f"minibatch: boards and modes) x {waiting:.2f} (less waiting at idle power)",
    ]
