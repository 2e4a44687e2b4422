"""A power-aware run against the same training with random selection at MAXN, over several seeds.

    python -m benchmarks.power_aware --seeds 5

For each seed: fleet energy and time until the target accuracy (or the best that both reached),
their ratio, and the factors of the energy ratio. Charged on the twin, not measured on Jetsons.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from powerctl import console
from powerctl.progress import Progress
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.history import best_value, spending_to
from wattfed.server.run.judging import energy_factors
from wattfed.strategies.run_config import RunConfig


def compare(config: RunConfig, target_accuracy: float) -> dict[str, float]:
    """One seed's comparison."""
    ours = simulate(config)
    other = simulate(replace(config, strategy="random", power="maxn"))
    bests = (best_value(run.rows) for run in (ours, other))
    level = min(target_accuracy, *(best for best in bests if best is not None))
    mine, theirs = (spending_to(run.rows, run.minibatches, level) for run in (ours, other))
    factors = energy_factors(mine, theirs)
    entries = ours.ledger.entries
    return {
        "seed": config.seed,
        "target": level,
        "accuracy": ours.rows[-1].value,
        "energy_kj": mine.energy_j / 1e3,
        "energy_maxn_kj": theirs.energy_j / 1e3,
        "time_s": mine.time_s,
        "time_maxn_s": theirs.time_s,
        "energy_ratio": theirs.energy_j / mine.energy_j,
        **factors,
        "violations": sum(entry.budget_misses for entry in entries),
        "violations_maxn": sum(entry.budget_misses for entry in other.ledger.entries),
    }


def _geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from --seed on.")
@click.option("--seed", default=0, show_default=True)
@click.option("--strategy", default="pace", show_default=True)
@click.option("--target-accuracy", default=0.9, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    seeds: int, seed: int, strategy: str, target_accuracy: float, json_path: str | None
) -> None:
    """Run the benchmark."""
    rows = []
    with tempfile.TemporaryDirectory() as out_dir, Progress("seeds", seeds) as shown:
        for number in range(seed, seed + seeds):
            config = RunConfig(strategy=strategy, seed=number, out_dir=out_dir)
            rows.append(compare(config, target_accuracy))
            shown.update(len(rows))
    console.print_table(list(rows[0]), [list(row.values()) for row in rows])
    ratios = {
        name: _geometric_mean([row[f"{name}_maxn_{unit}"] / row[f"{name}_{unit}"] for row in rows])
        for name, unit in (("energy", "kj"), ("time", "s"))
    }
    click.echo(
        f"geometric mean over {seeds} seeds: {ratios['energy']:.2f} times less energy, "
        f"{ratios['time']:.2f} times less time"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
