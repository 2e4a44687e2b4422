"""`wattfed strategies`: the names there are to choose from."""

from __future__ import annotations

import click


@click.command()
def strategies() -> None:
    """List selection policies, aggregation strategies, fleets, tasks and workloads."""
    from powerctl.workload import workload_names
    from wattfed.client.fleet import FLEETS
    from wattfed.client.tasks.federated import TASKS
    from wattfed.strategies.policies.catalogue import POLICIES
    from wattfed.strategies.round.aggregation import AGGREGATIONS

    for what, names in (
        ("strategies", POLICIES.names()),
        ("aggregations", AGGREGATIONS.names()),
        ("fleets", FLEETS.names()),
        ("tasks", TASKS.names()),
        ("workloads", workload_names()),
    ):
        click.echo(f"{what:>12}: {', '.join(names)}")
