"""`powerctl choose`: the mode that answers a question, and on request its measured proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import json_option, with_costs
from powerctl.commands.steps import TaskOptions, with_task

if TYPE_CHECKING:
    from powerctl.commands.costs import Costs
    from powerctl.fulcrum.question import Question

_EXAMPLES = """\b
Examples:
  The fastest mode within 30 W, by a predictor that powerctl fit saved:
    powerctl choose --predictor my-net.json --power-limit 30
  The least energy at most 5 % slower than the fastest, and within 30 W:
    powerctl choose --workload lstm-train --energy-min --slowdown 5% --power-limit 30
  The least energy within 80 ms a minibatch, 99 times of 100:
    powerctl choose --workload resnet50-infer --deadline 80ms --confidence 99%
  Measured before it is believed; the next best is tried if the limit is broken:
    powerctl choose --workload resnet18-train --power-limit 30 \\
      --verify --device twin:orin-agx
  The same, with minibatches of your own task:
    powerctl choose --workload resnet18-train --power-limit 30 \\
      --verify --device twin:orin-agx --task my_task.py
"""


@click.command(epilog=_EXAMPLES)
@with_costs
@click.option(
    "--power-limit", "--power", "power_w", type=console.Quantity("power"), help="At most: 30, 30W."
)
@click.option(
    "--deadline",
    "deadline_s",
    type=console.Quantity("time"),
    help="Time of a minibatch at most: 80ms, 1.5s.",
)
@click.option(
    "--slowdown",
    type=console.Quantity("share"),
    help="Time at most so much above the fastest mode's: 5%.",
)
@click.option("--energy-min", is_flag=True, help="Least energy; implied by the two above.")
@click.option(
    "--confidence",
    type=console.Quantity("share"),
    default="90%",
    show_default=True,
    help="Of keeping a limit; 50%: no margin.",
)
@click.option("--verify", is_flag=True, help="Measure the choice on --device.")
@click.option("--device", help="To verify on: twin:BOARD or table:FILE.csv.")
@with_task
@click.option(
    "--attempts",
    "at_most",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Modes measured at most.",
)
@json_option
def choose(
    costs: Costs,
    power_w: float | None,
    deadline_s: float | None,
    slowdown: float | None,
    energy_min: bool,
    confidence: float,
    verify: bool,
    device: str | None,
    task: TaskOptions | None,
    at_most: int,
    as_json: bool,
) -> None:
    """Choose a mode by power, time or energy.

    With --power-limit alone the fastest; with --deadline, --slowdown or --energy-min the one of
    least energy. Power limit and deadline are kept with the given confidence.
    """
    from powerctl.fulcrum.question import Question

    if power_w is None and deadline_s is None and slowdown is None and not energy_min:
        raise click.UsageError("give --power-limit, --deadline, --slowdown or --energy-min")
    question = Question(
        least_energy=energy_min or deadline_s is not None or slowdown is not None,
        power_limit_w=power_w,
        deadline_s=deadline_s,
        slowdown=slowdown,
        confidence=confidence,
    )
    if not verify:
        _tell(costs, question, question.answer(costs.values), as_json)
        return
    if device is None or costs.workload is None:
        raise click.UsageError("--verify needs --device, and --workload: what the device runs")
    from powerctl.commands import verify as proof

    costs, attempts = proof.verify(costs, question, costs.workload, device, task, at_most)
    if not as_json:
        proof.print_attempts(attempts)
    last = attempts[-1]
    if last.broken:
        if as_json:
            console.print_json({"kept": False, "attempts": [a.entry for a in attempts]})
        raise click.ClickException(
            f"none of {len(attempts)} measured modes kept the limits; the last: "
            f"{'; '.join(last.broken)}; ask for less, or for more --attempts"
        )
    more = {"kept": True, "attempts": [a.entry for a in attempts]}
    _tell(costs, question, costs.row(last.measured.mode), as_json, **more)


def _tell(costs: Costs, question: Question, row: int, as_json: bool, **more: Any) -> None:
    entry, limits = costs.entry(row), question.limits(costs.values)
    if as_json:
        told = [limit.entry(row) for limit in limits]
        console.print_json({"origin": costs.origin, **entry, "limits": told, **more})
        return
    from powerctl.commands.costs import print_entries

    print_entries([entry])
    for limit in limits:
        click.echo(limit.spoken(row))
    fastest = costs.entry(int(costs.values.time_s.argmin()))
    energy, time = (entry[key] / fastest[key] - 1 for key in ("energy_j", "time_s"))
    click.echo(f"against the fastest mode of all: energy {energy:+.0%}, time {time:+.0%}")
    click.echo(costs.caption)
