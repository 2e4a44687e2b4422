"""Simulation of a fleet on a virtual clock: Flower's app without Ray and without messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wattfed.client.choices import training_workload
from wattfed.client.fleet import load_fleet
from wattfed.server.federation import FederationResult, check, run_rounds
from wattfed.server.history import RoundRow
from wattfed.server.virtual.engine import VirtualEngine
from wattfed.strategies.run_config import RunConfig


def check_simulation(config: RunConfig) -> int:
    """Raise at once for what cannot be simulated; the number of clients of what can."""
    check(config)
    training_workload(config.workload)
    return len(load_fleet(config.fleet))


def simulate(
    config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """Run a federation over all clients of the configured fleet.

    The same strategy and the same client as on Flower's runtimes: the same seed gives the same
    selections and the same model there.
    """
    config = replace(config, min_nodes=check_simulation(config))
    return run_rounds(VirtualEngine(config, load_fleet(config.fleet)), config, on_row)
