"""What people see of a run: a bar and a line per round on stderr, a summary table on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wattfed.server.comparison.grid import Contender
from wattfed.server.history import (
    FederationResult,
    RoundRow,
    final_value,
    spending_to,
    troubles_of,
)
from wattfed.strategies.target import Target


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
        f"round {entry.round_time_s:6.1f} s  {entry.energy_j / 1e3:6.2f} kJ  "
        f"clients {clients}{f'  {wrong}' if wrong else ''}"
    )


class RunProgress:
    """A progress bar with the rounds' lines above it; used as a context manager."""

    def __init__(self, title: str, rounds: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._title = title
        self._task = self._progress.add_task(title, total=rounds)

    def __enter__(self) -> RunProgress:
        self._progress.console.print(f"[bold]{self._title}[/bold]")
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, row: RoundRow) -> None:
        """Print a round's line and move the bar."""
        line = row_line(row)
        self._progress.console.print(line, highlight=False, soft_wrap=True, markup=False)
        self._progress.update(self._task, completed=row.round)


def label(result: FederationResult) -> str:
    """How a run is called in tables and plots."""
    return Contender.of(result.config).policy


def summary_header(target: Target) -> tuple[str, ...]:
    """The columns of `summary_rows`."""
    return (
        *("run", target.name, "rounds*", "time* (s)", "energy* (kJ)"),
        *("total (s)", "total (kJ)", "waiting (kJ)", "over power", "over energy", "stepped down"),
    )


def summary_rows(
    results: Sequence[FederationResult], level: float | None
) -> list[tuple[object, ...]]:
    """The runs side by side, in the columns of `summary_header`; * is until a level is held."""
    return [_summary_row(result, level) for result in results]


def _summary_row(result: FederationResult, level: float | None) -> tuple[object, ...]:
    until: tuple[object, ...] = ("-",) * 3
    if level is not None:
        spent = spending_to(result.rows, result.minibatches, level, held=True)
        until = (spent.rounds, spent.time_s, spent.energy_j / 1e3)
    entries = result.ledger.entries
    return (
        label(result),
        result.target.in_table(final_value(result.rows)),
        *until,
        result.ledger.clock_s,
        result.ledger.energy_j / 1e3,
        sum(entry.wait_energy_j for entry in entries) / 1e3,
        sum(entry.power_violations for entry in entries),
        sum(entry.budget_violations for entry in entries),
        sum(entry.guarded for entry in entries),
    )
