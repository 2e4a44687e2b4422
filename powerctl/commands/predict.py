"""`powerctl predict`: time, power and energy of a minibatch in given modes, or in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import json_option, with_costs

if TYPE_CHECKING:
    from powerctl.commands.costs import Costs

_FRONT_POINTS = 8

_EXAMPLES = """\b
Examples:
  powerctl predict --predictor my-net.json
  powerctl predict --predictor my-net.json --mode 8c/1190/726/3199 --mode MODE_30W --json
  powerctl predict --workload lstm-train --board orin-nano --csv all-modes.csv
"""


@click.command(epilog=_EXAMPLES)
@with_costs
@click.option("--mode", "listed", multiple=True, help="E.g. 12c/2201/1300/3199, or a preset.")
@click.option("--csv", help="Write every mode to this file.")
@json_option
def predict(costs: Costs, listed: tuple[str, ...], csv: str | None, as_json: bool) -> None:
    """Show time, power and energy of modes.

    Of a minibatch, and how sure they are; without --mode of MAXN, of nvpmodel's presets, and along
    the front of time and power.
    """
    from powerctl.commands.costs import print_entries

    rows = [(name, costs.row(costs.board.mode(name))) for name in listed] or _usual(costs)
    entries = [costs.entry(row) for _, row in rows]
    labels = [name for name, _ in rows]
    if csv:
        costs.write(csv)
    if as_json:
        named = [{"name": n, **entry} for n, entry in zip(labels, entries, strict=True)]
        console.print_json({"origin": costs.origin, "modes": named, "csv": csv})
        return
    print_entries(entries, labels)
    click.echo(costs.caption)
    if csv:
        click.echo(f"{csv}: all {len(costs.values.time_s):,} modes")


def _usual(costs: Costs) -> list[tuple[str, int]]:
    """MAXN, the presets that the costs know, and the front of time and power, thinned."""
    from powerctl.pareto import pareto_front, thinned

    named = {preset.mode: preset.name for preset in costs.board.presets}
    named = {costs.board.space.maximum: "MAXN", **named}
    known = [(name, row) for mode, name in named.items() if (row := costs.find(mode)) is not None]
    front = pareto_front(costs.values.time_s, costs.values.power_w)
    shown = thinned(front, costs.values.time_s, _FRONT_POINTS)
    return known + [("front", int(row)) for row in shown]
