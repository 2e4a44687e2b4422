"""Opens what trains the clients of a run: this process, several, or the actors of a cluster."""

from __future__ import annotations

from wattfed.server.engines.workers import AsItPays, Clients, Trains, Workers
from wattfed.strategies.run_config import RunConfig


def trains(config: RunConfig) -> Trains:
    """What trains the clients of a run, and of runs after it, as its configuration says."""
    if isinstance(config.workers, str):
        from wattfed.server.engines.ray_workers import RayWorkers  # Ray takes time, and is an extra

        return RayWorkers(config)
    if config.workers == 0:
        return AsItPays()
    return Clients() if config.workers == 1 else Workers(config.workers)
