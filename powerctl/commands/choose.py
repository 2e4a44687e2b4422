"""`powerctl choose`: the mode that answers a question, and on request its measured proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    json_option,
    open_device_of,
    power_limit_option,
    with_costs,
)
from powerctl.errors import Infeasible
from powerctl.progress import Progress
from powerctl.quantities import time_unit
from powerctl.stopping import stopping_cleanly

if TYPE_CHECKING:
    from powerctl.commands.costs import Costs
    from powerctl.fulcrum.question import Question
    from powerctl.profiler import ProfiledMode
    from powerctl.workload import Workload

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
  Your own task, counted, and measured with its own minibatches:
    powerctl choose --task my_task.py --power-limit 30 --verify --device twin:orin-agx
"""


@click.command(epilog=_EXAMPLES)
@with_costs
@power_limit_option()
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
    attempts: list[Attempt] = []
    if verify:
        if device is None or costs.workload is None:
            raise click.UsageError(
                "--verify needs --device, and --workload or --task: what the device runs"
            )
        costs, attempts = _measured(costs, question, costs.workload, device, at_most)
        row, broken = costs.row(attempts[-1].measured.mode), attempts[-1].broken
    else:
        row, broken = question.answer(costs.values), ()
    if as_json:
        proof = {"kept": not broken, "attempts": [a.entry for a in attempts]} if verify else {}
        console.print_json(proof if broken else _entry(costs, question, row) | proof)
    else:
        _print_attempts(attempts)
        if not broken:
            _print_choice(costs, question, row)
    if broken:
        raise click.ClickException(
            f"none of {len(attempts)} measured modes kept the limits; the last: "
            f"{'; '.join(broken)}; ask for less, or for more --attempts"
        )


def _entry(costs: Costs, question: Question, row: int) -> dict[str, Any]:
    limits = [limit.entry(row) for limit in question.limits(costs.values)]
    return {"origin": costs.origin, **costs.entry(row), "limits": limits}


def _print_choice(costs: Costs, question: Question, row: int) -> None:
    from powerctl.commands.costs import print_entries

    entry = costs.entry(row)
    print_entries([entry])
    for limit in question.limits(costs.values):
        click.echo(limit.spoken(row))
    fastest = costs.entry(int(costs.values.time_s.argmin()))
    energy, time = (entry[key] / fastest[key] - 1 for key in ("energy_j", "time_s"))
    click.echo(f"against the fastest mode of all: energy {energy:+.0%}, time {time:+.0%}")
    click.echo(costs.caption)


@dataclass(frozen=True)
class Attempt:
    """A mode that was chosen and then measured, and the limits that it broke, in words."""

    predicted: dict[str, Any]
    measured: ProfiledMode
    broken: tuple[str, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """What was predicted and measured, and the limits that it broke, for JSON."""
        return {
            "predicted": self.predicted,
            "time_s": self.measured.time_s,
            "power_w": self.measured.power_w,
            "broken": self.broken,
        }


def _measured(
    costs: Costs,
    question: Question,
    workload: Workload,
    spec: str,
    at_most: int,
) -> tuple[Costs, list[Attempt]]:
    """Measure choice after choice on a device until one keeps the limits; restores the device.

    Each measurement makes the prediction better, from which the next is chosen. Gives the costs
    with what was measured, and the attempts; the last kept the limits, if any did.
    """
    from powerctl.profiler import Procedure, measure_mode

    device = open_device_of(costs.board, spec)
    size = workload.batch_size
    run = None if costs.task is None else costs.task.steps(device, [workload])[size]
    attempts: list[Attempt] = []

    def measured() -> str:
        return f"the device is restored; {len(attempts)} modes were measured"

    with stopping_cleanly(measured) as check, Progress("attempts", at_most) as shown:
        try:
            while len(attempts) < at_most:
                row = question.answer(costs.values)
                predicted, mode = costs.entry(row), costs.modes.mode(row)
                shown.say(f"measuring {mode}, attempt {len(attempts) + 1} of {at_most}")
                shown.update(len(attempts))
                seen = measure_mode(device, workload, mode, Procedure(), run)
                check()
                costs = costs.with_seen(seen.measurement)
                limits = question.limits(costs.values)
                broken = tuple(limit.spoken(row) for limit in limits if not limit.kept[row])
                attempts.append(Attempt(predicted, seen, broken))
                if not broken:
                    break
        except Infeasible:
            if not attempts:
                raise
        finally:
            device.restore()
    origin = f"measured on {spec}; beforehand {costs.origin}"
    return replace(costs, origin=origin), attempts


def _print_attempts(attempts: list[Attempt]) -> None:
    """Print what was measured beside what was predicted."""
    if not attempts:
        return
    unit, per_s = time_unit(attempt.measured.time_s for attempt in attempts)
    header = ("measured mode", f"time ({unit})", "predicted", "power (W)", "predicted", "limits")
    rows = [
        (
            str(attempt.measured.mode),
            per_s * attempt.measured.time_s,
            per_s * attempt.predicted["time_s"],
            attempt.measured.power_w,
            attempt.predicted["power_w"],
            "broken" if attempt.broken else "kept",
        )
        for attempt in attempts
    ]
    console.print_table(header, rows)
