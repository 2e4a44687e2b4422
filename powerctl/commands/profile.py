"""`powerctl profile`: measures modes of a device, into a log that a stopped run goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    budget_option,
    check_folder_of,
    json_option,
    option_group,
    per_axis_option,
    seed_option,
    with_task,
)
from powerctl.commands.own_task import TaskOptions
from powerctl.console import Quantity, WholeNumbers
from powerctl.errors import InvalidInput
from powerctl.progress import Progress
from powerctl.quantities import spoken
from powerctl.stopping import stopping_cleanly, this_command

if TYPE_CHECKING:
    from powerctl.device import Device
    from powerctl.modes import PowerMode
    from powerctl.profiler import Procedure, ProfileProgress, Sampler, Step
    from powerctl.profiler.profile_log import ProfileLog
    from powerctl.workload import Workload

_EXAMPLES = """\b
Examples:
  Thirty random modes of the simulated board, and their table:
    powerctl profile --device twin:orin-agx --workload resnet18-train \\
      --modes 30 --seed 0 --out run.jsonl --csv table.csv
  The modes that say most of all the others, 50 at most, fewer if 3 % of error are expected:
    powerctl profile --device twin:orin-agx --workload resnet18-train \\
      --modes 50 --sampling designed --until 3% --out run.jsonl
  A sub-grid, for as long as the device can be spared:
    powerctl profile --device twin:orin-nano --workload lstm-train \\
      --per-axis 3 --budget 1h30m --out grid.jsonl
  Two modes, three batch sizes of an inference:
    powerctl profile --device twin:orin-agx --workload resnet50-infer \\
      --mode maxn --mode 8c/1190/726/3199 --batch 1,4,16 --out batches.jsonl
  A Jetson, or a fake one (powerctl fake-board orin-agx /tmp/orin):
    powerctl profile --device jetson:/tmp/orin --modes 30 --out jetson.jsonl
  Minibatches of your own task, a file with load_data, Net, train and test:
    powerctl profile --device twin:orin-agx --task my_task.py --set model-name=tiny \\
      --modes 30 --out mine.jsonl
Run the same command again to go on with a run that was stopped.
"""


@dataclass(frozen=True)
class Sampling:
    """What a command line says of the modes to measure."""

    count: int | None
    method: str | None
    until: float | None
    seed: int
    per_axis: int | None
    every: bool
    listed: tuple[str, ...]

    def sampler(self, device: Device, workload: Workload, sizes: Sequence[int]) -> Sampler:
        """The sampler of those modes, for a workload in some batch sizes."""
        import numpy as np

        from powerctl.profiler import FixedModes

        grid = self.count is not None or self.per_axis is not None
        if grid + self.every + bool(self.listed) != 1:
            raise click.UsageError(
                "give one of --modes (with or without --per-axis), --all, --mode"
            )
        if self.count is None and (self.method == "designed" or self.until is not None):
            raise click.UsageError("designed sampling and --until need --modes: how many at most")
        if self.until is not None and self.method == "random":
            raise click.UsageError("--until needs --sampling designed")
        if self.listed:
            return FixedModes([device.space.parse(text) for text in self.listed])
        modes = device.modes if self.per_axis is None else [*device.space.thinned(self.per_axis)]
        if self.count is None:
            return FixedModes(modes)
        if self.count > len(modes):
            raise InvalidInput(
                f"--modes {self.count}: there are only {len(modes):,} to choose from"
            )
        if self.method != "random":
            return self._designed(device, workload, sizes, modes, self.count)
        # The head of one permutation, so that a log of 30 modes can be carried on to 50.
        drawn = np.random.default_rng(self.seed).permutation(len(modes))[: self.count]
        return FixedModes([modes[int(i)] for i in drawn])

    def _designed(
        self,
        device: Device,
        workload: Workload,
        sizes: Sequence[int],
        modes: Sequence[PowerMode],
        count: int,
    ) -> Sampler:
        from powerctl.modes import ModeArrays
        from powerctl.powertrain.design import DesignedModes
        from powerctl.powertrain.gaussian import GaussianPredictor

        until = self.until or 0.0
        board, kind = device.board, workload.kind
        return DesignedModes(
            GaussianPredictor(
                board.name,
                l4t=board.l4t,
                kind=kind,
                batch_size=sizes[0],
                expected=workload.counted_signature,
            ),
            ModeArrays.of(modes),
            count,
            time_error=until,
            power_error=until,
            batch_sizes=sizes if len(sizes) > 1 else (),
            random_state=self.seed,
        )


with_sampling = option_group(
    "sampling",
    Sampling,
    click.option("--modes", "count", type=click.IntRange(1), help="Number of modes to measure."),
    click.option(
        "--sampling",
        "method",
        type=click.Choice(["random", "designed"]),
        show_default="designed",
        help="How --modes are chosen; designed: those that tell most about all others.",
    ),
    click.option(
        "--until",
        type=Quantity("share"),
        help="Designed: stop earlier, when the expected error is this small: 3%.",
    ),
    seed_option("Random seed of the sampling."),
    per_axis_option,
    click.option("--all", "every", is_flag=True, help="Every mode of the device."),
    click.option(
        "--mode", "listed", multiple=True, help="This mode: 12c/2201/1300/3199; can be repeated."
    ),
)
"""Gives a command the options that say which modes; it receives them as `sampling`."""


@click.command("profile", epilog=_EXAMPLES)
@click.option("--device", "spec", required=True, help="jetson[:DIR], twin:BOARD or table:FILE.csv.")
@click.option(
    "--board",
    show_default="of a table: orin-agx",
    help="Board of a table; or of a Jetson that cannot be recognised.",
)
@click.option("--workload", show_default="resnet18-train, or --task's own", help="Workload.")
@click.option("--batch", type=WholeNumbers(), help="Batch sizes measured in each mode: 1,4,16.")
@with_sampling
@click.option(
    "--out", type=click.Path(dir_okay=False), required=True, help="Log file (JSON lines)."
)
@click.option("--csv", type=click.Path(dir_okay=False), help="Write the table as CSV too.")
@budget_option
@click.option(
    "--min-minibatches",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    help="Least minibatches in a mode.",
)
@click.option(
    "--time-error",
    type=Quantity("share"),
    default="2%",
    show_default=True,
    help="Measure until the 95 % interval of the time is this small.",
)
@click.option(
    "--power-error",
    type=Quantity("share"),
    default="1%",
    show_default=True,
    help="Measure until the 95 % interval of the power is this small.",
)
@click.option(
    "--total",
    type=click.Choice(["module", "jtop", "jtop-service"]),
    default="module",
    show_default=True,
    help="Which power of a Jetson: the module's rails, jtop's sum, or the jtop service.",
)
@with_task
@json_option
def profile_command(
    spec: str,
    board: str | None,
    workload: str | None,
    batch: tuple[int, ...] | None,
    sampling: Sampling,
    out: str,
    csv: str | None,
    budget_s: float,
    min_minibatches: int,
    time_error: float,
    power_error: float,
    total: str,
    task: TaskOptions | None,
    as_json: bool,
) -> None:
    """Measure time and power of a minibatch in modes of a device.

    Each mode runs until the means of time and power are precise enough; the log has it on disc
    before the next begins.
    """
    from powerctl.devices.opening import open_device
    from powerctl.profiler import Procedure
    from powerctl.profiler.profile_log import LogHeader, ProfileLog
    from powerctl.workload import load_workload

    procedure = Procedure(
        min_minibatches=min_minibatches, time_error=time_error, power_error=power_error
    )
    check_folder_of(out, csv)
    if workload is None and task is not None:
        job = task.workload("train", batch[0] if batch else None)
    else:
        job = load_workload(workload or "resnet18-train")
    sizes = batch or (job.batch_size,)
    device = open_device(spec, board=board, random_state=sampling.seed, total=total)
    if total != "module":  # figures that are not to be mixed
        spec = f"{spec} --total {total}"
    sampler = sampling.sampler(device, job, sizes)
    step = None
    if task is not None:
        step = task.steps(device, [job.with_batch_size(size) for size in sizes])
    with ProfileLog.open(out, LogHeader.of(device, spec, job, procedure)) as log:
        last = _run(device, job, sampler, log, procedure, budget_s, sizes, step)
        if csv and log.entries:
            log.table().write(csv)
        result = {"device": spec, "workload": job.name, "log": out, "csv": csv}
        result |= {"l4t": device.board.l4t} | _summary(device, log, last)
    if as_json:
        console.print_json(result)
    else:
        _print_summary(result)


def _run(
    device: Device,
    job: Workload,
    sampler: Sampler,
    log: ProfileLog,
    procedure: Procedure,
    budget_s: float,
    sizes: Sequence[int],
    step: Mapping[int, Step] | None,
) -> ProfileProgress:
    """Profile, showing progress; exits the command when a signal stops it."""
    from powerctl.profiler import profile

    def to_go_on() -> str:
        return (
            f"the device is restored; {log.path} holds {len(log.entries)} measurements; "
            f"to go on: {this_command()}"
        )

    reports: list[ProfileProgress] = []
    passes_sooner = device.is_virtual
    with stopping_cleanly(to_go_on) as check, Progress("measured") as shown:
        shown.begin(len(log.entries))

        def tell(now: ProfileProgress) -> None:
            check()
            reports.append(now)
            left_s = min(now.seconds_left, now.budget_left_s)
            shown.update(
                now.done,
                total=now.total,
                note=f"at {now.mode}" if now.mode else "",
                left_s=None if passes_sooner else left_s,  # than it says
            )

        profile(
            device,
            job,
            sampler,
            log,
            procedure=procedure,
            budget_s=budget_s,
            batch_sizes=sizes,
            step=step,
            progress=tell,
        )
    return reports[-1]


def _summary(device: Device, log: ProfileLog, last: ProfileProgress) -> dict[str, Any]:

    entries = log.entries
    return {
        "modes": len({entry.mode for entry in entries}),
        "measurements": len(entries),
        "minibatches": sum(entry.warmup + entry.n_minibatches for entry in entries),
        "device_time_s": sum(entry.seconds for entry in entries),
        "virtual": device.is_virtual,
        "not_precise": sum(not entry.precise for entry in entries),
        "left_out": last.left_out,
        "repeated": last.repeated,
    }


def _print_summary(result: dict[str, Any]) -> None:
    clock = "virtual time" if result["virtual"] else "device time"
    columns = ("modes", "measurements", "minibatches", clock, "not precise", "left out")
    row: list[object] = [result[name] for name in ("modes", "measurements", "minibatches")]
    row += [spoken(result["device_time_s"], "s"), result["not_precise"], result["left_out"]]
    console.print_table(columns, [row])
    saved = f"{result['log']} (log)" + (f", {result['csv']} (table)" if result["csv"] else "")
    click.echo(
        f"{result['workload']} on {result['device']} (L4T {result['l4t']}), saved in {saved}"
    )
    if result["not_precise"]:
        click.echo("not precise: stopped by the limits of a mode before both means were known")
    if result["repeated"]:
        click.echo(
            f"measured again: {result['repeated']}, five deviations or more off what the others "
            "say; the second counts"
        )
    if result["left_out"]:
        click.echo("left out: not expected to end in the budget; run the same command to go on")
