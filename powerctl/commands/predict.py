"""`powerctl predict`, `pareto` and `plot`: what a minibatch costs in modes, listed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import json_option, with_costs

if TYPE_CHECKING:
    from powerctl.commands.costs import Costs

_FRONT_POINTS = 8  # with MAXN and the presets, a table that fits a terminal of 24 lines

_EXAMPLES = """\b
Examples:
  powerctl predict --predictor my-net.json
  powerctl predict --predictor my-net.json --mode 8c/1190/726/3199 --mode MODE_30W --json
  powerctl predict --workload lstm-train --board orin-nano --csv all-modes.csv
"""


@click.command("predict", epilog=_EXAMPLES)
@with_costs
@click.option("--mode", "listed", multiple=True, help="E.g. 12c/2201/1300/3199, or a preset.")
@click.option("--csv", help="Write every mode to this file.")
@json_option
def predict_command(costs: Costs, listed: tuple[str, ...], csv: str | None, as_json: bool) -> None:
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


@click.command()
@with_costs
@click.option("--cost", type=click.Choice(["energy", "power"]), default="energy", show_default=True)
@click.option(
    "--points",
    type=click.IntRange(2),
    default=12,
    show_default=True,
    help="Points to thin the front to.",
)
@click.option("--plot", "png", help="Draw it too, as powerctl plot does, in this PNG.")
@json_option
def pareto(costs: Costs, cost: str, points: int, png: str | None, as_json: bool) -> None:
    """List the front of time and energy or power."""
    from powerctl.commands.costs import print_entries
    from powerctl.pareto import pareto_front, thinned

    values = costs.values
    front = pareto_front(values.time_s, values.energy_j if cost == "energy" else values.power_w)
    shown = [costs.entry(int(row)) for row in thinned(front, values.time_s, points)]
    if png:
        _draw(costs, cost, png)
    if as_json:
        console.print_json({"origin": costs.origin, "front_size": len(front), "front": shown})
        return
    print_entries(shown)
    among = f"{len(shown)} of {len(front)} modes on the front, of {len(values.time_s):,}"
    click.echo(f"{among}; {costs.caption}")


@click.command()
@with_costs
@click.option("--cost", type=click.Choice(["energy", "power"]), default="power", show_default=True)
@click.option(
    "--power-limit",
    "limit_w",
    type=console.Quantity("power"),
    help="Draw this limit, and the choice.",
)
@click.option("--out", default="front.png", show_default=True, help="The PNG to write.")
def plot(costs: Costs, cost: str, limit_w: float | None, out: str) -> None:
    """Draw the front, and what was measured.

    The band is the 90 % interval of the front; the choice is the one of powerctl choose.
    """
    _draw(costs, cost, out, limit_w)
    click.echo(f"{out}: {costs.origin}")


def _draw(costs: Costs, cost: str, out: str, limit_w: float | None = None) -> None:
    from powerctl.fulcrum.question import Question
    from powerctl.powertrain.front_plot import plot_front

    chosen = None
    if limit_w is not None:
        row = Question(power_limit_w=limit_w).answer(costs.values)
        chosen = (row, f"fastest within {limit_w:g} W: {costs.modes.mode(row)}")
    plot_front(
        Path(out),
        costs.values,
        cost,
        costs.origin,
        measured=costs.learned_from,
        limit_w=limit_w,
        chosen=chosen,
    )
