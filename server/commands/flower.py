"""`wattfed flower`: the same federation on Flower's Simulation Runtime."""

from __future__ import annotations

from typing import Any

import click

from wattfed.server.commands.options import run_options

_EXAMPLES = """\b
Examples:
  wattfed flower --rounds 5
"""


@click.command(epilog=_EXAMPLES)
@run_options()
def flower(**options: Any) -> None:
    """Run the same federation on Flower's Simulation Runtime (Ray), from a checkout of wattfed.

    The engine to use on many hosts; on one host `simulate` is faster. The same seed gives the same
    selections and the same model in both. Needs the extra `sim`.
    """
    from pathlib import Path

    from powerctl.plugins import absolute
    from powerctl.stopping import stopping_cleanly
    from wattfed.server.commands.simulate import saved
    from wattfed.server.engines.flower_run import run_on_flower
    from wattfed.server.engines.simulation import checked_config
    from wattfed.server.run.results import placed
    from wattfed.strategies.run_config import RunConfig

    for key in ("out_dir", "data_dir", "start_from"):  # the apps run in other folders
        options[key] = str(Path(options[key]).resolve()) if options[key] else ""
    for key in ("task", "workload", "fleet", "strategy", "aggregation"):
        options[key] = absolute(options[key])
    config = checked_config(placed(RunConfig(**options)))
    app_dir = Path(__file__).resolve().parents[2]
    with stopping_cleanly(lambda: saved([config])):
        run_on_flower(app_dir, config.min_nodes, config.to_flower())
    click.echo(f"results: {Path(config.out_dir) / config.run_name}")
