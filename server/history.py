"""The history of a run: accuracy beside the ledger of time and energy, and questions on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerctl.errors import UnknownName
from wattfed.server.frames import frame
from wattfed.strategies.ledger import Ledger, RoundEntry
from wattfed.strategies.run_config import RunConfig

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class RoundRow:
    """One round's accuracy, and the fleet's virtual time and energy until its end.

    Round 0 is the initial model; it has no ledger entry.
    """

    round: int
    accuracy: float
    loss: float
    clock_s: float
    total_energy_j: float
    entry: RoundEntry | None = None

    def flat(self) -> dict[str, Any]:
        """Columns of the results' CSV."""
        row = {key: value for key, value in vars(self).items() if key != "entry"}
        if self.entry is not None:
            row.update(vars(self.entry), energy_j=self.entry.energy_j)
            row["clients"] = " ".join(map(str, self.entry.clients))
        return row


COLUMNS = (
    *(item.name for item in fields(RoundRow) if item.name != "entry"),
    *(item.name for item in fields(RoundEntry) if item.name != "round"),
    "energy_j",
)
"""Of `RoundRow.flat`."""


@dataclass(frozen=True, repr=False)
class FederationResult:
    """A finished run: its history, its ledger with all reports, and where the files are."""

    config: RunConfig
    rows: tuple[RoundRow, ...]
    ledger: Ledger
    folder: Path

    @property
    def minibatches(self) -> list[int]:
        """Minibatches trained in each round."""
        return [
            sum(report.minibatches for report in self.ledger.reports_of(entry.round))
            for entry in self.ledger.entries
        ]

    def to_pandas(self, what: str = "rounds") -> DataFrame:
        """The run as a table of pandas, with the columns of the files in its folder.

        Parameters
        ----------
        what : {"rounds", "reports"}
            A row for each round, as in ``rounds.csv``, or for each client's report in each round,
            as in ``reports.jsonl``.
        """
        if what == "rounds":
            return frame([row.flat() for row in self.rows], COLUMNS)
        if what == "reports":
            reports = self.ledger.reports
            return frame({"round": number, **vars(report)} for number, report in reports)
        raise UnknownName("table of a run", what, ("rounds", "reports"))

    def __repr__(self) -> str:
        last = self.rows[-1]
        return (
            f"<{self.config.run_name}: {last.round} rounds, accuracy {last.accuracy:.3f}, "
            f"{last.clock_s:.1f} s and {last.total_energy_j / 1e3:.2f} kJ of the fleet, "
            f"in {self.folder}>"
        )


@dataclass(frozen=True)
class Spending:
    """What a run took until it reached an accuracy (or until its end).

    Its energy is the product of minibatches, joules per trained minibatch, and one plus the share
    of waiting: so the ratio of two runs' energies splits into three factors exactly.
    """

    reached: bool
    rounds: int
    time_s: float
    energy_j: float
    train_energy_j: float
    minibatches: int

    @property
    def minibatch_j(self) -> float:
        """Joules per trained minibatch, waiting left out."""
        return self.train_energy_j / max(self.minibatches, 1)

    @property
    def waiting_factor(self) -> float:
        """All energy over training energy."""
        return self.energy_j / self.train_energy_j if self.train_energy_j else 1.0


def best_accuracy(rows: Sequence[RoundRow]) -> float:
    """The highest accuracy of a history."""
    return max(row.accuracy for row in rows)


def spending_to(rows: Sequence[RoundRow], minibatches: Sequence[int], target: float) -> Spending:
    """What was spent until accuracy first reached a target.

    Parameters
    ----------
    rows : sequence of RoundRow
        A run's history, round 0 first.
    minibatches : sequence of int
        Minibatches trained in each of the rounds 1, 2, ...
    target : float
        Accuracy; if it was never reached, the whole run is counted.
    """
    last = next((row for row in rows if row.accuracy >= target), None)
    end = last or rows[-1]
    entries = [row.entry for row in rows if row.entry is not None and row.round <= end.round]
    return Spending(
        reached=last is not None,
        rounds=end.round,
        time_s=end.clock_s,
        energy_j=end.total_energy_j,
        train_energy_j=sum(entry.train_energy_j for entry in entries),
        minibatches=sum(minibatches[: end.round]),
    )


def summary(config: RunConfig, rows: Sequence[RoundRow], ledger: Ledger) -> dict[str, object]:
    """A run in a few numbers; times and energies are the fleet's own."""
    entries = ledger.entries
    return {
        "task": config.task,
        "charged_workload": config.workload,
        "strategy": config.strategy,
        "power": config.power,
        "rounds": len(entries),
        "final_accuracy": rows[-1].accuracy,
        "best_accuracy": best_accuracy(rows),
        "virtual_time_s": ledger.clock_s,
        "energy_j": ledger.energy_j,
        "train_energy_j": sum(entry.train_energy_j for entry in entries),
        "transfer_energy_j": sum(entry.transfer_energy_j for entry in entries),
        "wait_energy_j": sum(entry.wait_energy_j for entry in entries),
        "wasted_energy_j": sum(entry.wasted_energy_j for entry in entries),
        "power_violations": sum(entry.power_violations for entry in entries),
        "budget_violations": sum(entry.budget_violations for entry in entries),
        "latency_violations": sum(entry.latency_violations for entry in entries),
        "inference_energy_j": sum(entry.inference_energy_j for entry in entries),
        "guarded": sum(entry.guarded for entry in entries),
        "late": sum(entry.late for entry in entries),
        "declined": sum(entry.declined for entry in entries),
        "failed": sum(entry.failed for entry in entries),
        "rejected": sum(entry.rejected for entry in entries),
        "stale": sum(entry.stale for entry in entries),
        "dropped": sum(entry.dropped for entry in entries),
    }


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with NaN and infinity as null, which JSON can hold."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
