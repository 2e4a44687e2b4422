"""`powerctl pareto` and `plot`: the front of time and energy or power, as rows and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import json_option, with_costs

if TYPE_CHECKING:
    from powerctl.commands.costs import Costs


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
