"""`powerctl tune`: the mode that saves energy at little cost in time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    Subject,
    json_option,
    open_device_of,
    power_limit_option,
    with_board,
    with_subject,
)
from powerctl.console import Quantity, WholeNumbers
from powerctl.progress import Progress
from powerctl.quantities import spoken, time_unit
from powerctl.stopping import stopping_cleanly

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.device import Device
    from powerctl.fulcrum.tuning import TuningGoal
    from powerctl.measurement import Measurement
    from powerctl.modes import PowerMode
    from powerctl.powertrain.gaussian import GaussianPredictor
    from powerctl.profiler import Step
    from powerctl.workload import Workload

_EXAMPLES = """\b
Examples:
  By prediction alone, from the counts of the model:
    powerctl tune resnet50 --batch 1,16,64 --slowdown 5%
  Measured: ten modes to learn from, then the ten best candidates:
    powerctl tune mobilenetv3 --kind train --device twin:orin-agx --out tuned.csv
  Your own model:
    powerctl tune my_pkg.my_mod:make --input 3,224,224 --kind train --power-limit 30
  The training of your own task, counted; with --device, measured:
    powerctl tune --task my_task.py --batch 16,32
"""


@click.command(epilog=_EXAMPLES)
@with_subject
@with_board
@click.option(
    "--batch",
    "sizes",
    type=WholeNumbers(),
    default="16",
    show_default=True,
    help="Batch sizes, e.g. 1,4,16.",
)
@click.option(
    "--objective",
    type=click.Choice(["energy", "energy-delay"]),
    default="energy",
    show_default=True,
    help="What is made least.",
)
@click.option(
    "--slowdown",
    type=Quantity("share"),
    default="5%",
    show_default=True,
    help="Against MAXN, at most.",
)
@power_limit_option(default=math.inf, show_default="none")
@click.option("--device", "spec", help="Measure on twin:BOARD or table:FILE.csv.")
@click.option(
    "--modes", type=click.IntRange(1), default=10, show_default=True, help="Measured to learn from."
)
@click.option(
    "--attempts",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Candidates measured at most.",
)
@click.option("--out", type=click.Path(dir_okay=False), help="Write what was measured as CSV.")
@json_option
def tune(
    subject: Subject,
    board: Board,
    sizes: tuple[int, ...],
    objective: str,
    slowdown: float,
    power_w: float,
    spec: str | None,
    modes: int,
    attempts: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Find the mode of least energy of MODEL, or of your own task, little slower than MAXN.

    Without --device by prediction from counts; with one, what is chosen was measured.
    MODEL is as in powerctl explain.
    """
    from powerctl.fulcrum.tuning import TuningGoal
    from powerctl.measurement import MeasurementTable
    from powerctl.powertrain.gaussian import GaussianPredictor

    goal = TuningGoal(objective, slowdown, power_w)
    if spec is None and (out or (subject.task and subject.model)):
        raise click.UsageError(
            "--out, and --task beside MODEL, are for what is measured: give --device"
        )
    jobs = [subject.workload(size) for size in sizes]
    predictors = [
        GaussianPredictor(
            board.name,
            l4t=board.l4t,
            kind=job.kind,
            batch_size=job.batch_size,
            expected=job.counted_signature,
        )
        for job in jobs
    ]
    if spec is None:
        with Progress("predicting"):
            found = [_predicted(predictor, board, goal) for predictor in predictors]
    else:
        device = open_device_of(board, spec)
        bench = _Bench(device, {} if subject.task is None else subject.task.steps(device, jobs))
        found = [
            bench.tuned(job, predictor, goal, modes, attempts)
            for job, predictor in zip(jobs, predictors, strict=True)
        ]
        if out:
            MeasurementTable.of(bench.measured, spec).write(out)
    entries = [
        {"batch_size": job.batch_size, **entry} for job, entry in zip(jobs, found, strict=True)
    ]
    if as_json:
        name = jobs[0].name
        console.print_json({"model": name, "board": board.name, "choices": entries})
        return
    _print(entries, objective, slowdown)
    click.echo(f"on {board.label}")
    for entry in entries:
        if entry["energy_saved"] <= 0:
            click.echo(f"batch {entry['batch_size']}: nothing better than MAXN was found")
    click.echo(f"measured on {spec}" if spec else "predicted from counts, not measured: --device")
    if out:
        click.echo(f"{out}: what was measured")


def _predicted(predictor: GaussianPredictor, board: Board, goal: TuningGoal) -> dict[str, Any]:
    """The mode chosen by prediction alone, beside MAXN."""
    from powerctl.errors import Infeasible
    from powerctl.measurement import Measurement, MeasurementTable

    modes = board.space.arrays
    costs = predictor.fit(MeasurementTable.of([], "nothing")).predict(modes)
    maxn = int(board.space.indices(type(modes).of([board.space.maximum]))[0])
    best = goal.best(costs.time_s, costs.power_w, float(costs.time_s[maxn]))
    if best is None:
        raise Infeasible(
            f"no mode is expected within {goal.power_limit_w:g} W that is at most "
            f"{100 * goal.slowdown:g} % slower than MAXN; allow more --slowdown"
        )
    baseline, chosen = (
        Measurement(modes.mode(row), float(costs.time_s[row]), float(costs.power_w[row]))
        for row in (maxn, best)
    )
    entry = _entry(baseline, chosen)
    return entry | {
        "time_std": float(costs.time_std[best]),
        "power_std": float(costs.power_std[best]),
    }


def _entry(baseline: Measurement, chosen: Measurement) -> dict[str, Any]:
    return {
        "mode": str(chosen.mode),
        "time_s": chosen.time_s,
        "power_w": chosen.power_w,
        "energy_j": chosen.energy_j,
        "energy_saved": 1 - chosen.energy_j / baseline.energy_j,
        "slowdown": chosen.time_s / baseline.time_s - 1,
    }


@dataclass
class _Bench:
    """A device on which candidates are measured, what runs there, and all that it measured."""

    device: Device
    steps: Mapping[int, Step]
    measured: list[Measurement] = field(default_factory=list)

    def tuned(
        self,
        job: Workload,
        predictor: GaussianPredictor,
        goal: TuningGoal,
        modes: int,
        attempts: int,
    ) -> dict[str, Any]:
        """The mode chosen for one batch size by measuring the best candidates."""
        from powerctl.fulcrum.tuning import tune_mode
        from powerctl.modes import ModeArrays
        from powerctl.profiler import Procedure, measure_mode

        size = job.batch_size
        candidates = self.device.modes
        maxn = max(candidates, key=lambda mode: mode.values[::-1])
        before = len(self.measured)

        def measured() -> str:
            return f"the device is restored; {len(self.measured)} modes were measured"

        with (
            stopping_cleanly(measured) as check,
            Progress(f"batch {size}, measured", modes + attempts) as shown,
        ):

            def measure(mode: PowerMode) -> Measurement:
                fact = measure_mode(self.device, job, mode, Procedure(), self.steps.get(size))
                self.measured.append(fact.measurement)
                shown.say(
                    f"batch {size}, {len(self.measured)}: {mode}  {spoken(fact.time_s, 's')}  "
                    f"{spoken(fact.power_w, 'W')}"
                )
                shown.update(len(self.measured) - before)
                check()
                return fact.measurement

            arrays = ModeArrays.of(candidates)
            try:
                found = tune_mode(
                    predictor, arrays, maxn, measure, goal, profile=modes, attempts=attempts
                )
            finally:
                self.device.restore()
        return _entry(found.baseline, found.chosen) | {"modes_measured": len(found.measured)}


def _print(entries: list[dict[str, Any]], objective: str, slowdown: float) -> None:
    click.echo(f"least {objective}, at most {100 * slowdown:g} % slower than MAXN:")
    unit, per_s = time_unit(entry["time_s"] for entry in entries)
    header = [
        "mode",
        "batch",
        f"time ({unit})",
        "power (W)",
        "energy (J)",
        "energy saved",
        "slower",
    ]
    rows: list[list[object]] = [
        [
            entry["mode"],
            entry["batch_size"],
            per_s * entry["time_s"],
            entry["power_w"],
            entry["energy_j"],
            f"{entry['energy_saved']:.1%}",
            f"{entry['slowdown']:+.1%}",
        ]
        for entry in entries
    ]
    if "modes_measured" in entries[0]:
        header.append("modes measured")
        rows = [[*row, e["modes_measured"]] for row, e in zip(rows, entries, strict=True)]
    console.print_table(header, rows)
