"""Tables of a comparison of selection policies: how many times less each takes than another.

| symbol  | meaning                                                                       |
|---------|-------------------------------------------------------------------------------|
| c, s    | a cell, and a seed of it                                                      |
| x_p     | joules, or seconds, of policy p until the target was held; of who misses it,  |
|         | all that it spent: a bound from below, and no run is dropped                  |
| f_p     | geometric mean over cells of those over seeds of x_baseline / x_p             |

Intervals are of a bootstrap over seeds, paired: each cell's seeds are drawn anew, for both policies
alike.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from powerctl import console, reading
from powerctl.durable import write_output
from powerctl.modes import FloatArray

Row = Mapping[str, Any]

BASELINE = "random"
OURS = "pace"
_DRAWS = 2000
ENERGIES = {
    "training": ("energy_training_to_target_j", "energy_training_j"),
    "charged": ("energy_to_target_j", "energy_j"),
    "always on": ("energy_always_on_to_target_j", "energy_always_on_j"),
}
TIME = ("time_to_target_s", "virtual_time_s")


class Factor(NamedTuple):
    """A ratio of means, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


class Compared:
    """All runs, by policy.

    Parameters
    ----------
    rows : sequence of mapping
        Of `benchmarks.cells.rows_of`, each with its cell.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.cells = list(dict.fromkeys(row["cell"] for row in rows))
        self._runs: dict[str, dict[tuple[str, int], Row]] = {}
        for row in rows:
            name = str(row["strategy"]).partition("(")[0]
            self._runs.setdefault(name, {})[row["cell"], row["seed"]] = row

    @property
    def policies(self) -> list[str]:
        """Their names."""
        return list(self._runs)

    def runs(self, policy: str, cells: Sequence[str] = ()) -> list[Row]:
        """The runs of a policy, in some cells or in all."""
        return [r for r in self._runs[policy].values() if not cells or r["cell"] in cells]

    def factor(
        self, policy: str, other: str, fields: Sequence[tuple[str, str]], cells: Sequence[str] = ()
    ) -> Factor:
        """How many times as much another takes: the product of some measures' factors."""
        logs = []
        for cell in cells or self.cells:
            pairs = [
                (self._runs[other][key], row)
                for key, row in self._runs[policy].items()
                if key[0] == cell and key in self._runs[other]
            ]
            if pairs:
                logs.append(
                    np.array(
                        [sum(math.log(spent(a, f) / spent(b, f)) for f in fields) for a, b in pairs]
                    )
                )
        return _bootstrapped(logs)


def spent(row: Row, field: tuple[str, str]) -> float:
    """Until the target; of a run that missed it, all."""
    until, whole = (row[name] for name in field)
    return float(whole if until is None else until)


def _bootstrapped(logs: Sequence[FloatArray]) -> Factor:
    """The geometric mean over cells of those over seeds, from logarithms by seed."""
    if not logs:
        return Factor(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(0)
    draws = np.mean([rng.choice(log, (_DRAWS, len(log))).mean(axis=1) for log in logs], axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    mean = float(np.mean([log.mean() for log in logs]))
    return Factor(math.exp(mean), math.exp(low), math.exp(high))


def print_tables(rows: Sequence[Row]) -> None:
    """A table of each cell, the factors over all, and a sentence of verdict."""
    compared = Compared(rows)
    for cell in compared.cells:
        _print_cell(compared, cell)
    click.echo(f"\nall cells, times less than {BASELINE} (95 % by bootstrap over seeds):")
    header = ("policy", "settings", "held", *ENERGIES, "time", "energy x time")
    fields = [[field] for field in (*ENERGIES.values(), TIME)] + [[ENERGIES["charged"], TIME]]
    lines = []
    for policy in compared.policies:
        runs = compared.runs(policy)
        held = sum(not row["censored"] for row in runs)
        factors = [compared.factor(policy, BASELINE, each) for each in fields]
        lines.append((policy, _settings(runs[0]), f"{held}/{len(runs)}", *map(str, factors)))
    console.print_table(header, lines)
    click.echo(verdict(compared))


def _print_cell(compared: Compared, cell: str) -> None:
    first = next(row for name in compared.policies for row in compared.runs(name, [cell]))
    click.echo(
        f"\n{cell}: {first['task']}, {first['skew']}, {first['fleet']}, {first['metric']} "
        f"{first['target']:g}, {first['budget_j'] / 1e3:.0f} kJ each"
    )
    header = (
        *("policy", "settings", "held", "kJ", "training kJ", "always-on kJ", "s"),
        *("rungs, times less kJ", "final", "worst tenth", "took", "Jain"),
    )
    lines = []
    for policy in compared.policies:
        runs = compared.runs(policy, [cell])
        if not runs:
            continue
        training, charged, always_on = (
            _mean([spent(row, field) for row in runs]) / 1e3 for field in ENERGIES.values()
        )
        lines.append(
            (
                *(policy, _settings(runs[0])),
                f"{sum(not row['censored'] for row in runs)}/{len(runs)}",
                *(charged, training, always_on, _mean([spent(row, TIME) for row in runs])),
                _rungs(compared, policy, cell),
                *(_plain(runs, name) for name in ("final_metric", "worst_decile")),
                *(_plain(runs, name) for name in ("clients_per_round", "jain_fairness")),
            )
        )
    console.print_table(header, lines)


def _rungs(compared: Compared, policy: str, cell: str) -> float:
    """Times less energy than the baseline until the rungs, geometric mean; misses at their end."""
    ours = {row["seed"]: row for row in compared.runs(policy, [cell])}
    logs, field = [], ENERGIES["charged"]
    for row in compared.runs(BASELINE, [cell]):
        if (own := ours.get(row["seed"])) is None:
            continue
        for mine, theirs in zip(own["rungs"], row["rungs"], strict=True):
            less = spent({**row, **theirs}, field) / spent({**own, **mine}, field)
            logs.append(math.log(less))
    return math.exp(float(np.mean(logs))) if logs else math.nan


def verdict(compared: Compared) -> str:
    """Ours beside the best other: of the least energy times time, a miss counting in full."""
    others = [name for name in compared.policies if name != OURS]
    if OURS not in compared.policies or not others:
        return ""
    everywhere = [
        name for name in others if {r["cell"] for r in compared.runs(name)} == set(compared.cells)
    ]
    both = [ENERGIES["charged"], TIME]
    best = max(everywhere, key=lambda name: compared.factor(name, BASELINE, both).mean)
    energy, time, product = (
        compared.factor(OURS, best, fields) for fields in ([both[0]], [both[1]], both)
    )
    sure = "" if energy.low > 1 or energy.high < 1 else ", so that it may be chance"
    by_cell = [compared.factor(OURS, best, both[:1], [cell]).mean for cell in compared.cells]
    return (
        f"Beside the best other, {best} with {_settings(compared.runs(best)[0])}, {OURS} takes "
        f"{energy} times less energy{sure}, by cell {min(by_cell):.2f} to {max(by_cell):.2f}, and "
        f"{time} times less time; the product is {product}."
    )


def _settings(row: Row) -> str:
    parameters = str(row["strategy"]).partition("(")[2].rstrip(")")
    return " ".join(filter(None, (str(row["per_round"]), str(row["power"]), parameters)))


def _plain(runs: Sequence[Row], name: str) -> float:
    return _mean([row[name] for row in runs if row[name] is not None])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, of which lists and absent values are JSON; numbers have six digits."""
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_output(path, text.getvalue())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_short(value))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_short(each) for each in value]
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return value


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_csv` wrote."""
    texts = ("cell", "strategy", "power", "task", "skew", "fleet", "accounting", "metric")
    header, *lines = reading.read_csv(path)
    return [
        {
            key: value if key in texts else json.loads(value)
            for key, value in zip(header, line, strict=True)
        }
        for line in lines
    ]
