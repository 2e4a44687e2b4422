"""`wattfed flower`: the same federation on Flower's Simulation Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from wattfed.server.commands.dry_run import dry_run_option, print_run_plan
from wattfed.server.commands.options import asked_run, config_of_app, run_options

_EXAMPLES = """\b
Examples:
  wattfed flower --rounds 5
"""


@click.command(epilog=_EXAMPLES)
@run_options()
@dry_run_option
def flower(dry_run: bool, **options: Any) -> None:
    """Run the same federation on Flower's Simulation Runtime (Ray).

    The same seed gives the same selections and the same model as `simulate`, which is faster on
    one host. Needs the extra `sim`. It runs the Flower app of this folder, else wattfed's own.
    """
    from pathlib import Path

    from powerctl.plugins import absolute
    from powerctl.stopping import stopping_cleanly
    from wattfed.server.commands.simulate import saved
    from wattfed.server.engines.flower_run import run_on_flower
    from wattfed.server.engines.simulation import checked_config
    from wattfed.server.run.results import placed

    asked = asked_run(options)
    folders = ("out_dir", "data_dir", "start_from")  # the apps run in other folders
    paths = {k: str(Path(path).resolve()) for k in folders if (path := getattr(asked, k))}
    names = ("task", "workload", "fleet", "strategy", "aggregation")
    paths |= {key: absolute(getattr(asked, key)) for key in names}
    tracker, _, place = asked.log.partition(":")
    if tracker == "tensorboard" and place:
        paths["log"] = f"{tracker}:{Path(place).resolve()}"
    config = checked_config(placed(asked.changed(**paths)))
    if dry_run:
        return print_run_plan(config)
    app_dir, run_config = Path(__file__).resolve().parents[2], config.to_flower()
    if (own := config_of_app()) is not None:
        _check_keys(asked.to_flower(), own)
        app_dir, run_config = Path.cwd(), {key: run_config[key] for key in own}
    with stopping_cleanly(lambda: saved([config])):
        run_on_flower(app_dir, config.min_nodes, run_config)
    click.echo(f"results: {Path(config.out_dir) / config.run_name}")


def _check_keys(asked: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for what an app's run config has no key for: Flower takes no other."""
    from powerctl.errors import InvalidInput
    from wattfed.strategies.run_config import RunConfig

    usual = RunConfig().to_flower()
    for key in sorted(asked.keys() - own.keys()):
        if asked[key] != usual.get(key):
            raise InvalidInput(
                f"{key} is {asked[key]}, and Flower takes only keys that the app has: put {key} "
                "into [tool.flwr.app.config] of its pyproject.toml"
            )
