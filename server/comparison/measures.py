"""What a run took, in the fields that `benchmarks.select` and the report give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import (
    FederationResult,
    RoundRow,
    best_held,
    best_value,
    final_value,
    finite,
    held_values,
    spent_j,
    totals,
)
from wattfed.server.run.judging import has_learned
from wattfed.strategies.accounting import ACCOUNTINGS, ALWAYS_ON, CHARGED, TRAINING
from wattfed.strategies.target import Target

_SUMMED = (
    *("train_energy_j", "transfer_energy_j", "wait_energy_j", "wasted_energy_j"),
    *("overhead_energy_j", "supply_energy_j"),
    *("power_violations", "latency_violations", "late"),
)
_NOT_TOLD = ("target", "course", "has_learned")  # what tables are made with, but do not have


@dataclass(frozen=True)
class Course:
    """What a run held after each round (the mean of three), and had spent until then.

    `energy_j` has the joules in each accounting by its name.
    """

    held: tuple[float | None, ...]
    rounds: tuple[int, ...]
    time_s: tuple[float, ...]
    energy_j: Mapping[str, Sequence[float]]
    best: float | None

    @classmethod
    def of(cls, rows: Sequence[RoundRow]) -> Course:
        """The course of a history."""
        return cls(
            held=tuple(held_values(rows)),
            rounds=tuple(row.round for row in rows),
            time_s=tuple(row.clock_s for row in rows),
            energy_j={accounting: spent_j(rows, accounting) for accounting in ACCOUNTINGS},
            best=best_held(rows),
        )

    def until(self, target: Target, level: float) -> dict[str, Any]:
        """When a level was first held, and what it took until then, as `RunMeasures` call it."""
        held = enumerate(self.held)
        at = next((i for i, value in held if target.reached(value, level)), None)
        spent = {
            "rounds_to_target": self.rounds,
            "time_to_target_s": self.time_s,
            "energy_to_target_j": self.energy_j[CHARGED],
            "energy_training_to_target_j": self.energy_j[TRAINING],
            "energy_always_on_to_target_j": self.energy_j[ALWAYS_ON],
        }
        return {name: None if at is None else values[at] for name, values in spent.items()}


@dataclass(frozen=True)
class RunMeasures:
    """One run, up to one level of its target metric and in whole.

    Times and energies are the fleet's, on its virtual clock, idle waiting inside a round included;
    those to the level are until it was first held, the mean of three rounds, and None where it was
    not. Energy is that of training, transfer, waiting, overhead, carrier boards and supplies;
    beside it stand the other accountings of `wattfed.strategies.accounting`. `wasted_energy_j` is
    the part of it whose updates were not used. `jain_fairness` is Jain's index over how often each
    client of the fleet trained. `budget_violations` counts clients in a round that broke a limit of
    power or of energy, `power_violations` those of power alone, `latency_violations` those whose
    inference was too slow.
    """

    strategy: str
    power: str
    per_round: int
    seed: int
    level: float
    rounds_to_target: int | None
    time_to_target_s: float | None
    energy_to_target_j: float | None
    energy_training_to_target_j: float | None
    energy_always_on_to_target_j: float | None
    final: float | None
    best: float | None
    rounds: int
    energy_j: float
    energy_training_j: float
    energy_always_on_j: float
    train_energy_j: float
    transfer_energy_j: float
    wait_energy_j: float
    overhead_energy_j: float
    supply_energy_j: float
    wasted_energy_j: float
    virtual_time_s: float
    clients_per_round: float
    jain_fairness: float
    budget_violations: int
    power_violations: int
    latency_violations: int
    late: int
    target: Target = field(default_factory=Target)
    course: Course = field(kw_only=True, repr=False, compare=False)
    has_learned: bool = field(default=True, repr=False, compare=False)

    def until_held(self, level: float) -> RunMeasures:
        """The same run up to another level."""
        return replace(self, level=level, **self.course.until(self.target, level))

    def record(self) -> dict[str, Any]:
        """A row of ``runs.csv``, or of JSON: level, final and best value by the metric's name."""
        name = self.target.name
        names = {"level": f"target_{name}", "final": f"final_{name}", "best": f"best_{name}"}
        values = {key: value for key, value in vars(self).items() if key not in _NOT_TOLD}
        return finite({names.get(key, key): value for key, value in values.items()})


def measure_run(result: FederationResult, n_clients: int, level: float) -> RunMeasures:
    """What a finished run took, with a fleet of so many clients."""
    contender = Contender.of(result.config)
    course = Course.of(result.rows)
    entries = result.ledger.entries
    times = result.participations
    return RunMeasures(
        **contender._asdict(),
        **totals(entries, _SUMMED),
        **course.until(result.target, level),
        seed=result.config.seed,
        level=level,
        final=final_value(result.rows),
        best=best_value(result.rows),
        rounds=len(entries),
        energy_j=result.ledger.energy_j,
        energy_training_j=course.energy_j[TRAINING][-1],
        energy_always_on_j=course.energy_j[ALWAYS_ON][-1],
        virtual_time_s=result.ledger.clock_s,
        clients_per_round=sum(times.values()) / max(len(entries), 1),
        jain_fairness=jain_index([times[client] for client in range(n_clients)]),
        budget_violations=sum(entry.budget_misses for entry in entries),
        target=result.target,
        course=course,
        has_learned=has_learned(result.rows, result.participants),
    )


def measures_of(folder: ComparisonFolder, comparison: Comparison) -> list[RunMeasures]:
    """The finished runs of a folder, each at every level of the target, the easiest first."""
    _, n_clients = folder.asked()
    return [
        measure_run(result, n_clients, level)
        for result in folder.results(comparison)
        for level in result.target.easiest_first(comparison.targets)
    ]


def jain_index(shares: Iterable[float]) -> float:
    """Jain's index of fairness: 1 if all have the same, 1/n if one has all; 0 if none has any."""
    values = np.array(list(shares), dtype=float)
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares else 0.0
