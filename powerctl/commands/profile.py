"""`powerctl profile`: measures modes of a device, into a log that a stopped run goes on from."""

from __future__ import annotations

import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from types import FrameType

    from powerctl.device import Device
    from powerctl.modes import PowerMode
    from powerctl.profile_log import ProfileLog
    from powerctl.profiler import Procedure, Progress, Sampler, Step
    from powerctl.workload import Workload

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_BETWEEN_LINES = 5.0

_EXAMPLES = """\b
Examples:
  Thirty random modes of the simulated board, and their table:
    powerctl profile --device twin:orin-agx --workload resnet18-train \\
      --modes 30 --seed 0 --out run.jsonl --csv table.csv
  A sub-grid, for as long as the device can be spared:
    powerctl profile --device twin:orin-nano --workload lstm-train \\
      --per-axis 3 --budget 1h30m --out grid.jsonl
  Two modes, three batch sizes of an inference:
    powerctl profile --device twin:orin-agx --workload resnet50-infer \\
      --mode maxn --mode 8c/1190/726/3199 --batch 1,4,16 --out batches.jsonl
  Minibatches of your own: make() returns the function that runs one:
    powerctl profile --device twin:orin-agx --workload resnet18-train \\
      --modes 30 --step my_training:make --out mine.jsonl
Run the same command again to go on with a run that was stopped.
"""


@click.command("profile", epilog=_EXAMPLES)
@click.option("--device", "spec", required=True, help="twin:BOARD or table:FILE.csv.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of a table device.")
@click.option("--workload", default="resnet18-train", show_default=True, help="Workload.")
@click.option("--batch", help="Batch sizes measured in each mode, e.g. 1,4,16.")
@click.option("--modes", "count", type=click.IntRange(1), help="So many modes, sampled.")
@click.option(
    "--sampling",
    type=click.Choice(["random"]),
    default="random",
    show_default=True,
    help="How --modes are chosen.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampling.")
@click.option("--per-axis", type=click.IntRange(2), help="From a sub-grid of so many an axis.")
@click.option("--all", "every", is_flag=True, help="Every mode of the device.")
@click.option("--mode", "listed", multiple=True, help="This mode, e.g. 12c/2201/1300/3199; repeat.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="The log, JSON lines.")
@click.option("--csv", type=click.Path(dir_okay=False), help="Write the table as CSV too.")
@click.option("--budget", help="Time of this run on the device's clock: 90s, 20m, 1h30m.")
@click.option(
    "--min-minibatches",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    help="A mode at least.",
)
@click.option("--time-error", default="2%", show_default=True, help="95 % interval of the time.")
@click.option("--power-error", default="1%", show_default=True, help="95 % interval of the power.")
@click.option("--step", "step_name", help="pkg.module:make, which returns what runs a minibatch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def profile_command(
    spec: str,
    board: str,
    workload: str,
    batch: str | None,
    count: int | None,
    sampling: str,
    seed: int,
    per_axis: int | None,
    every: bool,
    listed: tuple[str, ...],
    out: str,
    csv: str | None,
    budget: str | None,
    min_minibatches: int,
    time_error: str,
    power_error: str,
    step_name: str | None,
    as_json: bool,
) -> None:
    """Measure time and power of a minibatch in modes of a device.

    Each mode runs until the means of time and power are precise enough; the log has it on disc
    before the next begins.
    """
    from powerctl.device import open_device
    from powerctl.profile_log import LogHeader, ProfileLog
    from powerctl.profiler import Procedure
    from powerctl.workload import load_workload

    procedure = Procedure(
        min_minibatches=min_minibatches,
        time_error=parse_fraction(time_error, "--time-error"),
        power_error=parse_fraction(power_error, "--power-error"),
    )
    budget_s = math.inf if budget is None else parse_duration(budget, "--budget")
    job = load_workload(workload)
    sizes = (job.batch_size,) if batch is None else parse_sizes(batch, "--batch")
    for path in filter(None, (out, csv)):  # before the profile, not after an hour of it
        if not Path(path).absolute().parent.is_dir():
            raise InvalidInput(f"{path}: there is no folder {Path(path).parent}")
    device = open_device(spec, board=board, random_state=seed)
    sampler = _sampler(device, sampling, count, per_axis, every, listed, seed)
    step = None if step_name is None else _load_step(step_name, sizes)
    with ProfileLog.open(out, LogHeader.of(device, spec, job, procedure)) as log:
        last = _run(device, job, sampler, log, procedure, budget_s, sizes, step)
        if csv and log.entries:
            log.table().write(csv)
        result = {"device": spec, "workload": job.name, "log": out, "csv": csv}
        result |= _summary(device, log, last)
    if as_json:
        console.print_json(result)
    else:
        _print_summary(result)


def _sampler(
    device: Device,
    sampling: str,
    count: int | None,
    per_axis: int | None,
    every: bool,
    listed: Sequence[str],
    seed: int,
) -> Sampler:
    """The modes that the options ask for. Samplings other than random are chosen between here."""
    from powerctl.profiler import FixedModes

    if (count is not None or per_axis is not None) + every + bool(listed) != 1:
        raise click.UsageError("give one of --modes (with or without --per-axis), --all, --mode")
    if listed:
        return FixedModes([device.space.parse(text) for text in listed])
    modes = _modes_of(device) if per_axis is None else list(device.space.thinned(per_axis))
    return FixedModes(modes if count is None else _random_modes(modes, count, seed))


def _modes_of(device: Device) -> list[PowerMode]:
    """All modes that a device can run: of a table those it holds, of a board its space."""
    from powerctl.devices.table import TableDevice

    if isinstance(device, TableDevice):
        held = device.table.modes
        return list(dict.fromkeys(held.mode(row) for row in range(len(device.table))))
    return list(device.space)


def _random_modes(modes: Sequence[PowerMode], count: int, seed: int) -> list[PowerMode]:
    import numpy as np

    if count > len(modes):
        raise InvalidInput(f"--modes {count}: there are only {len(modes):,} to choose from")
    # The head of one permutation, so that a log of 30 modes can be carried on to 50.
    drawn = np.random.default_rng(seed).permutation(len(modes))[:count]
    return [modes[int(i)] for i in drawn]


def _load_step(name: str, sizes: Sequence[int]) -> Mapping[int, Step]:
    """The step of each batch size, from the function that ``pkg.module:make`` names."""
    import importlib
    import inspect

    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InvalidInput(f"--step {name}: write pkg.module:make")
    sys.path.insert(0, "")  # as `python -m` does: the module is often beside the person
    try:
        make = getattr(importlib.import_module(module_name), function_name)
        takes_size = bool(inspect.signature(make).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"--step {name}: {error}") from None
    if not takes_size and len(sizes) > 1:
        raise InvalidInput(
            f"--step {name}: to run several batch sizes, {function_name} must take the batch size"
        )
    steps = {size: make(size) if takes_size else make() for size in sizes}
    if not all(callable(step) for step in steps.values()):
        raise InvalidInput(f"--step {name}: {function_name} did not return a function")
    return steps


def _run(
    device: Device,
    job: Workload,
    sampler: Sampler,
    log: ProfileLog,
    procedure: Procedure,
    budget_s: float,
    sizes: Sequence[int],
    step: Mapping[int, Step] | None,
) -> Progress:
    """Profile, showing progress; exits the command when a signal stops it."""
    from powerctl.profiler import profile

    reports: list[Progress] = []
    try:
        with _stopping_cleanly() as check, _display(device) as show:

            def tell(progress: Progress) -> None:
                check()
                reports.append(progress)
                show(progress)

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
    except _Stopped as stop:
        click.echo(
            f"stopped by {stop.signal.name}, the device is restored; {log.path} holds "
            f"{len(log.entries)} measurements; to go on, run the same command again",
            err=True,
        )
        sys.exit(128 + stop.signal)
    return reports[-1]


class _Stopped(KeyboardInterrupt):
    """A signal asked to stop; no `Exception`, so that a step's own handlers let it through."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def _stopping_cleanly() -> Iterator[Callable[[], None]]:
    """Turn signals into `_Stopped`, the first at once; later ones must not break the restoring.

    Gives a function that raises it again, for a step that swallowed it.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise _Stopped(number)

    def check() -> None:
        if received:
            raise _Stopped(received[0])

    # One that is ignored stays so: nohup ignores SIGHUP for a profile that outlives its terminal.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _display(device: Device) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, else a line every few seconds; both on stderr."""
    clock = "virtual device time" if _is_virtual(device) else "device time"
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, TextColumn("{task.fields[left]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=None, left="")
            yield lambda now: bar.update(
                task,
                description=str(now.mode or ""),
                completed=now.done,
                total=now.total,
                left=_left(now, clock),
            )
        return
    printed = -math.inf

    def line(now: Progress) -> None:
        nonlocal printed
        if now.mode is not None and time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            click.echo(
                f"{now.done} of {now.total}, at {now.mode}  {_left(now, clock)}".rstrip(), err=True
            )

    yield line


def _left(now: Progress, clock: str) -> str:
    if now.mode is None or math.isnan(now.seconds_left):
        return ""
    return f"{spoken_duration(min(now.seconds_left, now.budget_left_s))} of {clock} left"


def _is_virtual(device: Device) -> bool:
    from powerctl.devices.virtual import VirtualDevice

    return isinstance(device, VirtualDevice)


def _summary(device: Device, log: ProfileLog, last: Progress) -> dict[str, Any]:
    entries = log.entries
    return {
        "modes": len({entry.mode for entry in entries}),
        "measurements": len(entries),
        "minibatches": sum(entry.warmup + entry.n_minibatches for entry in entries),
        "device_time_s": sum(entry.seconds for entry in entries),
        "virtual": _is_virtual(device),
        "not_precise": sum(not entry.precise for entry in entries),
        "left_out": last.left_out,
    }


def _print_summary(result: dict[str, Any]) -> None:
    clock = "virtual time" if result["virtual"] else "device time"
    columns = ("modes", "measurements", "minibatches", clock, "not precise", "left out")
    row: list[object] = [result[name] for name in ("modes", "measurements", "minibatches")]
    row += [spoken_duration(result["device_time_s"]), result["not_precise"], result["left_out"]]
    console.print_table(columns, [row])
    saved = f"{result['log']} (log)" + (f", {result['csv']} (table)" if result["csv"] else "")
    click.echo(f"{result['workload']} on {result['device']}, saved in {saved}")
    if result["not_precise"]:
        click.echo("not precise: stopped by the limits of a mode before both means were known")
    if result["left_out"]:
        click.echo("left out: not expected to end in the budget; run the same command to go on")


def parse_duration(text: str, what: str = "duration") -> float:
    """Seconds of a duration such as ``90s``, ``20m``, ``1h30m``; `what` names it in the error."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip())
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    if sum(parts) <= 0:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as 90s, 20m or 1h30m")
    hours, minutes, seconds = parts
    return 3600 * hours + 60 * minutes + seconds


def spoken_duration(seconds: float) -> str:
    """A duration for people, in two units at most: ``1 h 30 min``, ``6 min 12 s``, ``8.3 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def parse_fraction(text: str, what: str) -> float:
    """The fraction written as ``2%`` or ``0.02``."""
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as 2% or 0.02") from None


def parse_sizes(text: str, what: str) -> tuple[int, ...]:
    """The batch sizes written as ``1,4,16``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InvalidInput(f"cannot read {what} {text!r}; write batch sizes such as 1,4,16")
    return tuple(dict.fromkeys(int(part) for part in parts))
