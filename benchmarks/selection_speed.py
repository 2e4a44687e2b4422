"""How long every policy takes to select from a large pool.

    python -m benchmarks.selection_speed --clients 100000 --per-round 100

The pool is arrays of random clients (fronts of twelve choices, ten labels, batteries, links). Wall
time of `select` alone, median and highest over the rounds after the first; the first, in which
a policy meets its clients (HACCS clusters them), stands in a column of its own.
"""

from __future__ import annotations

import json
import time

import click
import numpy as np

from powerctl import console
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.catalogue import POLICIES, make_policy
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.run_config import RunConfig


def random_offers(n: int, choices: int = 12, seed: int = 0) -> Offers:
    """Offers of n able clients whose times, energies, data and batteries differ widely."""
    rng = np.random.default_rng(seed)
    fastest_s = rng.uniform(2.0, 40.0, (n, 1))
    slower = np.linspace(1.0, 3.0, choices)
    energy_j = fastest_s * rng.uniform(8.0, 40.0, (n, 1)) * np.linspace(1.0, 0.5, choices)
    capacity_j = rng.uniform(5e3, 5e4, n)
    return Offers(
        client=np.arange(n),
        examples=rng.integers(20, 500, n),
        minibatches=rng.integers(2, 30, n),
        loss=np.full(n, np.nan),
        time_s=fastest_s * slower,
        energy_j=energy_j,
        maxn_time_s=0.8 * fastest_s[:, 0],
        idle_power_w=rng.uniform(1.0, 5.0, n),
        transfer_s=rng.uniform(0.1, 5.0, n),
        allowance_j=rng.uniform(100.0, 5000.0, n),
        able=np.ones(n, dtype=bool),
        maxn_energy_j=energy_j[:, 0],
        preset_time_s=fastest_s[:, 0],
        preset_energy_j=energy_j[:, 0],
        label_counts=rng.dirichlet(np.full(10, 0.3), n) * 100,
        battery_j=capacity_j * rng.uniform(0.2, 1.0, n),
        battery_capacity_j=capacity_j,
        available_s=rng.exponential(300.0, n),
        overhead_s=np.zeros(n),
        radio_j=np.zeros(n),
        carrier_w=np.zeros(n),
        supply_efficiency=np.ones(n),
    )


def reported(assignment: RoundAssignment, loss: float) -> RoundReport:
    """The report of a client that trained just as planned."""
    return RoundReport(
        client=assignment.client,
        examples=100,
        minibatches=assignment.minibatches,
        time_s=20.0,
        energy_j=300.0,
        peak_power_w=15.0,
        transfer_s=1.0,
        idle_power_w=3.0,
        loss=loss,
        power_limit_w=30.0,
        allowance_j=1e4,
        deadline_s=assignment.deadline_s,
        wanted_minibatches=assignment.minibatches,
        planned_minibatches=assignment.minibatches,
        planned_time_s=20.0,
        planned_energy_j=300.0,
    )


def selection_ms(name: str, offers: Offers, k: int, rounds: int, seed: int) -> list[float]:
    """Milliseconds of each round's selection."""
    policy = make_policy(RunConfig(strategy=name, rounds=rounds))
    rng = np.random.default_rng(seed)
    taken = []
    for server_round in range(1, rounds + 1):
        started = time.perf_counter()
        assignments = policy.select(offers, k, server_round, rng)
        taken.append(1e3 * (time.perf_counter() - started))
        policy.observe([reported(a, float(rng.gamma(2.0))) for a in assignments[: 10 * k]])
    return taken


@click.command()
@click.option("--clients", default=100_000, show_default=True, help="Clients in the pool.")
@click.option("--per-round", default=100, show_default=True, help="Clients wanted in a round.")
@click.option("--rounds", default=30, show_default=True, help="Rounds to select for.")
@click.option("--strategies", default="", help="Names with commas between; empty for all.")
@click.option("--json", "out", default="", metavar="OUT", help="Also write the result as JSON.")
def main(clients: int, per_round: int, rounds: int, strategies: str, out: str) -> None:
    """Time the selection of every policy."""
    offers = random_offers(clients)
    results = []
    for name in strategies.split(",") if strategies else POLICIES.names():
        first, *later = selection_ms(name, offers, per_round, rounds, seed=0)
        results.append(
            {
                "strategy": name,
                "clients": clients,
                "first_ms": first,
                "median_ms": float(np.median(later)),
                "highest_ms": max(later),
            }
        )
    console.print_table(
        ("policy", "first (ms)", "median (ms)", "highest (ms)"),
        [(str(r["strategy"]), *(f"{r[key]:.3g}" for key in list(r)[2:])) for r in results],
    )
    click.echo(f"wall time of selecting {per_round} of {clients} clients, {rounds} rounds")
    if out:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
