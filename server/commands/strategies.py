"""`wattfed strategies`: the names there are to choose from."""

from __future__ import annotations

import click


@click.command()
def strategies() -> None:
    """List selection policies, aggregation strategies, fleets, tasks and workloads."""
    from powerctl.workload import workload_names
    from wattfed.client.fleet import fleet_names
    from wattfed.client.tasks.federated import task_names
    from wattfed.strategies.policies.catalogue import aggregation_names, policy_names

    for what, names in (
        ("strategies", policy_names()),
        ("aggregations", aggregation_names()),
        ("fleets", fleet_names()),
        ("tasks", task_names()),
        ("workloads", workload_names()),
    ):
        click.echo(f"{what:>12}: {', '.join(names)}")
