"""The `wattfed` command: the group of all its commands, which `wattfed.server.commands` holds."""

from __future__ import annotations

import click

from powerctl import console
from wattfed.server.commands.calibrate import calibrate_command
from wattfed.server.commands.compare import compare_command, report
from wattfed.server.commands.completion import completion
from wattfed.server.commands.deploy import init, keys, units
from wattfed.server.commands.flower import flower
from wattfed.server.commands.live import top_command, watch
from wattfed.server.commands.new import new_command
from wattfed.server.commands.runs import runs_group
from wattfed.server.commands.simulate import simulate_command
from wattfed.server.commands.strategies import strategies

_EXAMPLES = """\b
Examples:
  wattfed new my-app
  wattfed simulate
  wattfed simulate --strategy fedcs --power fastest --rounds 30 --seed 1
  wattfed simulate --against random:maxn --against random:slack --target-accuracy 0.9
  wattfed simulate --fleet my-fleet.toml --task cifar10 --data-dir ~/data --json
  wattfed compare --strategies random,oort,pace --power maxn,slack --per-round 5,10 --seeds 3
  wattfed report runs/comparison
  wattfed top
  wattfed runs list
  wattfed flower --rounds 5
  wattfed calibrate runs/deployed --fleet my-fleet.toml --out measured.toml
"""


@click.group("wattfed", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattfed")
def cli() -> None:
    """Federated learning whose clients are power-aware Jetsons."""


for command in (
    new_command,
    simulate_command,
    top_command,
    watch,
    compare_command,
    report,
    runs_group,
    flower,
    calibrate_command,
    init,
    keys,
    units,
    strategies,
    completion,
):
    cli.add_command(command)


def main() -> None:
    """Run the `wattfed` command and end with its exit status."""
    console.run(cli)
