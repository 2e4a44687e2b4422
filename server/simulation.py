"""Simulation of a fleet on a virtual clock: Flower's app without Ray and without messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wattfed.client.fleet import load_fleet
from wattfed.client.local import training_workload
from wattfed.server.federation import FederationResult, check, run_rounds
from wattfed.server.history import RoundRow
from wattfed.server.virtual.engine import VirtualEngine
from wattfed.strategies.run_config import RunConfig


def checked(config: RunConfig) -> RunConfig:
    """The configuration with its fleet's number of nodes; raises for what cannot be simulated."""
    check(config)
    training_workload(config.workload)
    return replace(config, min_nodes=len(load_fleet(config.fleet)))


def simulate(
    config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """Run a federation over all clients of the configured fleet.

    The same strategy and the same client as on Flower's runtimes: the same seed gives the same
    selections and the same model there.
    """
    return run_checked(checked(config), on_row)


def run_checked(
    config: RunConfig, on_row: Callable[[RoundRow], None] | None = None
) -> FederationResult:
    """As `simulate`, of a configuration from `checked`: for who checks many before the first."""
    return run_rounds(VirtualEngine(config, load_fleet(config.fleet)), config, on_row)
