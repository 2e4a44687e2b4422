"""What people see of a run: a bar and a line per round on stderr, a summary table on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from wattfed.server.comparison.grid import Contender
from wattfed.server.history import FederationResult, RoundRow, Spending, best_accuracy, spending_to


def row_line(row: RoundRow) -> str:
    """One round in one line; time and energy are the fleet's, on its virtual clock."""
    if row.entry is None:
        return f"initial model  accuracy {row.accuracy:.3f}"
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
        f"round {row.round:3d}  accuracy {row.accuracy:.3f}  "
        f"round {entry.round_time_s:6.1f} s  {entry.energy_j / 1e3:6.2f} kJ  "
        f"budget misses {entry.budget_misses}  clients {clients}{notes}"
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
        self._progress.console.print(row_line(row), highlight=False, soft_wrap=True)
        self._progress.update(self._task, completed=row.round)


def label(result: FederationResult) -> str:
    """How a run is called in tables and plots."""
    return Contender.of(result.config).policy


SUMMARY_HEADER = (
    "run",
    "accuracy",
    "rounds*",
    "time* (s)",
    "energy* (kJ)",
    "total (s)",
    "total (kJ)",
    "waiting (kJ)",
    "over power",
    "stepped down",
    "over budget",
)


def summary_rows(results: Sequence[FederationResult], target: float) -> list[tuple[object, ...]]:
    """The runs side by side, in the columns of `SUMMARY_HEADER`; * is until the target accuracy."""
    return [_summary_row(result, target) for result in results]


def _summary_row(result: FederationResult, target: float) -> tuple[object, ...]:
    spent = spending_to(result.rows, result.minibatches, target)
    until = (spent.rounds, spent.time_s, spent.energy_j / 1e3) if spent.reached else ("-",) * 3
    entries = result.ledger.entries
    return (
        label(result),
        result.rows[-1].accuracy,
        *until,
        result.ledger.clock_s,
        result.ledger.energy_j / 1e3,
        sum(entry.wait_energy_j for entry in entries) / 1e3,
        sum(entry.power_violations for entry in entries),
        sum(entry.guarded for entry in entries),
        sum(entry.budget_violations for entry in entries),
    )


def common_target(results: Sequence[FederationResult], target: float) -> float:
    """The target, or the accuracy that all runs reached if one of them fell short of it."""
    return min(target, *(best_accuracy(result.rows) for result in results))


def energy_factors(mine: Spending, theirs: Spending) -> dict[str, float]:
    """What the ratio of their energy to mine is made of; the factors' product is the ratio."""
    return {
        "fewer_minibatches": theirs.minibatches / mine.minibatches,
        "fewer_joules_per_minibatch": theirs.minibatch_j / mine.minibatch_j,
        "less_waiting": theirs.waiting_factor / mine.waiting_factor,
    }


def comparison(ours: FederationResult, other: FederationResult, target: float) -> list[str]:
    """In words: the energy and time of both at equal accuracy, and what the ratio is made of."""
    mine, theirs = (spending_to(r.rows, r.minibatches, target) for r in (ours, other))
    if not (mine.minibatches and theirs.minibatches):
        return [
            f"The initial model has {target:.3f}, and a run got no higher: after more rounds there "
            "may be something to compare."
        ]
    ratio = theirs.energy_j / mine.energy_j
    work, modes, waiting = energy_factors(mine, theirs).values()
    return [
        f"At equal accuracy ({target:.3f}) {label(ours)} used {ratio:.2f} times less energy than "
        f"{label(other)}: {mine.energy_j / 1e3:.3g} against {theirs.energy_j / 1e3:.3g} kJ, "
        f"in {mine.time_s:.3g} against {theirs.time_s:.3g} s.",
        f"  {ratio:.2f} = {work:.2f} (fewer minibatches) x {modes:.2f} (fewer joules per "
        f"minibatch: boards and modes) x {waiting:.2f} (less waiting at idle power)",
    ]
