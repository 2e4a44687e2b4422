"""Simulation of a fleet in this process, on a virtual clock: Flower's app without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from client.app import app as client_app
from client.fleet import load_fleet
from client.local import training_workload
from server.federation import FederationResult, check, run_federation
from server.history import RoundRow
from server.in_process_grid import InProcessGrid
from strategies.run_config import RunConfig


def check_simulation(config: RunConfig) -> int:
    """Raise at once for what cannot be simulated; the number of clients of what can."""
    check(config)
    training_workload(config.workload)
    return len(load_fleet(config.fleet))


def simulate(
    config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """Run a federation over all clients of the configured fleet.

    The same ServerApp code, strategy and ClientApp as on Flower's runtimes: the same seed gives
    the same selections and the same model there.
    """
    n_clients = check_simulation(config)
    config = replace(config, min_nodes=n_clients)
    grid = InProcessGrid(client_app, n_clients, config.to_flower())
    return run_federation(grid, config, on_row)
