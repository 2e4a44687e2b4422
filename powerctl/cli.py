"""The `powerctl` command: the group of all its commands, which `powerctl.commands` holds."""

from __future__ import annotations

import click

from powerctl import console
from powerctl.commands.board_catalogue import board, boards, modes, presets
from powerctl.commands.characterize import characterize
from powerctl.commands.choose import choose
from powerctl.commands.explain import explain
from powerctl.commands.fit import fit, reference
from powerctl.commands.jetson_board import daemon, doctor, fake_board, nvpmodel, restore_command
from powerctl.commands.predict import pareto, plot, predict_command
from powerctl.commands.profile import profile_command
from powerctl.commands.roofline import roofline
from powerctl.commands.solve import solve_command
from powerctl.commands.tune import tune
from powerctl.commands.twin import twin

_EXAMPLES = """\b
Examples:
  What there is:
    powerctl boards
    powerctl modes --board orin-agx --cores 4,8,12 --limit 20
    powerctl presets --board orin-nano --l4t 36.4
  A network of your own: measure a few modes, fit, choose, look:
    powerctl profile --device twin:orin-agx --modes 30 --out run.jsonl
    powerctl fit run.jsonl --out my-net.json
    powerctl choose --predictor my-net.json --power-limit 30
    powerctl plot --predictor my-net.json --power-limit 30 --out front.png
  A network that was never measured, from its FLOP and bytes:
    powerctl explain resnet50 --board orin-agx --mode maxn --batch 16
    powerctl tune my_pkg.my_mod:make --input 3,224,224 --kind train --slowdown 5%
  Training beside inference, within power and latency:
    powerctl solve --device twin:orin-agx --train resnet18-train --infer mobilenetv3-infer \\
      --power 30 --rate 60 --latency 500ms --plot search.png
  What shapes the time and energy of training here:
    powerctl characterize --out study
  A network of the catalogue:
    powerctl choose --board orin-nano --workload resnet18-train --energy-min --slowdown 5%
    powerctl pareto --board orin-agx --workload mobilenetv3-train
    powerctl twin run --board orin-agx --workload lstm-train --mode 12c/2201/1300/3199
"""


@click.group("powerctl", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Power modes of NVIDIA Jetsons: what there is, what it costs, and which to choose.

    Costs come from a calibrated cost model of the board (the twin), from a CSV or log of
    measurements (--table), or from a predictor fitted to a few of them (--predictor).
    """


for command in (
    *(boards, board, modes, presets),
    *(profile_command, fit, reference),
    *(predict_command, pareto, choose, plot),
    *(explain, tune, roofline),
    characterize,
    solve_command,
    *(doctor, nvpmodel, daemon, restore_command, fake_board),
    twin,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line of this process."""
    console.run(cli)
