"""Options that commands share: each is declared once, and a group of them arrives as one object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl.commands.own_task import TaskOptions
from powerctl.console import Quantity
from powerctl.errors import InvalidInput
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.commands.costs import Costs
    from powerctl.commands.tables import Measured
    from powerctl.device import Device
    from powerctl.pagoda.counted import CountedModel, CountedTask
    from powerctl.workload import Workload

Command = Callable[..., None]
Option = Callable[[Command], Command]


def option_group(name: str, make: Callable[..., Any], *options: Option) -> Option:
    """Make a decorator that gives a command options, and hands it one object made of them.

    Parameters
    ----------
    name : str
        Under which the command receives the object.
    make : callable
        Makes it of the values of the options, by their names.
    *options : callable
        What `click.option` and `click.argument` return.
    """

    def declared() -> None: ...

    for option in options:
        option(declared)
    names = [each.name for each in vars(declared)["__click_params__"] if each.expose_value]

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            made = make(**{each: given.pop(each) for each in names})
            command(**{name: made}, **given)

        decorated: Command = run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def open_device_of(board: Board, spec: str) -> Device:
    """Open the device of a command line that must be of a board."""
    from powerctl.devices.opening import open_device

    is_jetson = spec.partition(":")[0] in (
        "jetson",
        "recorded",
    )  # which says itself which board it is
    device = open_device(spec, board=None if is_jetson else board.name)
    if device.board.name != board.name:
        raise InvalidInput(f"--device {spec} is no {board.name}: give --board {device.board.name}")
    return device


def check_folder_of(*files: str | None) -> None:
    """Raise `InvalidInput` if the folder of a file to be written is missing, before long work."""
    for path in filter(None, files):
        if not Path(path).absolute().parent.is_dir():
            raise InvalidInput(f"{path}: there is no folder {Path(path).parent}")


def _set_accelerator(context: click.Context, option: click.Parameter, text: str | None) -> None:
    from powerctl.accelerator import choose_accelerator

    choose_accelerator(text or "")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
accelerator_option = click.option(
    "--accelerator",
    metavar="auto|cpu|cuda[:N]",
    expose_value=False,
    callback=_set_accelerator,
    help="Where models are kept; auto: the GPU if torch can use one.  [default: auto]",
)
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="An argument of the task's functions; can be repeated.",
)
budget_option = click.option(
    "--budget",
    "budget_s",
    type=Quantity("duration"),
    default=math.inf,
    show_default="none",
    help="Stop after this time on the device's clock: 90s, 20m, 1h30m.",
)
per_axis_option = click.option(
    "--per-axis",
    type=click.IntRange(2),
    help="Only a grid of modes, with this many values on each axis.",
)
log_board_option = click.option("--board", show_default="orin-agx, or of the log", help="Board.")
_l4t_option = click.option("--l4t", help="L4T release, if the clocks differ between releases.")
input_option = click.option(
    "--input", help="Shape of an input of your own model: 3,224,224 or 128:int64."
)


def kind_option(**more: Any) -> Option:
    """The option ``--kind``, which says whether a workload trains or infers."""
    return click.option("--kind", type=click.Choice(["train", "infer"]), **more)


def power_limit_option(**more: Any) -> Option:
    """The option ``--power-limit`` in watts, which a command receives as `power_w`."""
    names = ("--power-limit", "--power", "power_w")
    return click.option(*names, type=Quantity("power"), help="Power limit: 30, 30W.", **more)


def seed_option(of: str) -> Option:
    """The option ``--seed``; the help text says what is drawn with it."""
    return click.option("--seed", type=int, default=0, show_default=True, help=of)


def _board(board: str, l4t: str | None) -> Board:
    from powerctl.boards import load_board

    return load_board(board, l4t)


with_board = option_group(
    "board",
    _board,
    click.option("--board", default="orin-agx", show_default=True, help="Board."),
    _l4t_option,
)
"""Gives a command ``--board`` and ``--l4t``; it receives the `Board` as `board`."""


def _measured(
    table: str, board: str | None, l4t: str | None, kind: str | None, batch: int | None
) -> Measured:
    from powerctl.commands.tables import read_measured

    return read_measured(table, board, l4t, kind, batch)


with_table = option_group(
    "measured",
    _measured,
    click.argument("table"),
    log_board_option,
    _l4t_option,
    kind_option(show_default="train, or of the log", help="What was measured."),
    click.option(
        "--batch",
        type=click.IntRange(1),
        show_default="of the table, or 16",
        help="Batch size that was measured; if there are several, the one to predict.",
    ),
)
"""Gives a command the argument TABLE, and what it is of; it receives `Measured` as `measured`."""


def _references(names: tuple[str, ...], no_reference: bool) -> tuple[str, ...] | None:
    if names and no_reference:
        raise click.UsageError("give --reference or --no-reference, not both")
    return () if no_reference else names or None


with_references = option_group(
    "references",
    _references,
    click.option(
        "--reference",
        "names",
        multiple=True,
        help="Use only this workload as prior knowledge; can be repeated.",
    ),
    click.option("--no-reference", is_flag=True, help="Use no other workload as prior knowledge."),
)
"""Gives a command what may be known of other workloads, as `references`: names, or None for all."""


def _task(own: str | None, settings: tuple[str, ...]) -> TaskOptions | None:
    if settings and own is None:
        raise click.UsageError("--set is for a task of your own: give --task")
    return None if own is None else TaskOptions(own, settings)


_task_options = (
    click.option("--task", "own", help="Your own task: my_task.py, pkg.mod, or either with :Name."),
    settings_option,
    accelerator_option,
)
with_task = option_group("task", _task, *_task_options)
"""Gives a command ``--task`` and ``--set``; it receives `TaskOptions` as `task`, or None."""


def _costs(own: str | None, settings: tuple[str, ...], **given: Any) -> Costs:
    from powerctl.commands.costs import CostSource, load_costs

    with Progress("predicting"):
        return load_costs(CostSource(**given, task=_task(own, settings)))


with_costs = option_group(
    "costs",
    _costs,
    click.option("--board", show_default="orin-agx, or what a file says", help="Board."),
    _l4t_option,
    click.option("--workload", show_default="resnet18-train", help="What runs: name or .toml."),
    click.option("--batch", type=click.IntRange(1), help="Batch size."),
    click.option("--table", help="Take costs from measurements: a CSV or a profile log."),
    click.option(
        "--predictor",
        help="Take costs from a file of powerctl fit; with --table: a predictor of your own.",
    ),
    click.option(
        "--model",
        help="Estimate costs from the FLOP and bytes of a model: resnet50, torchvision:NAME, "
        "pkg.module:make.",
    ),
    input_option,
    kind_option(show_default="infer; of a task train", help="What --model or --task does."),
    *_task_options,
)
"""Gives a command the options that say where costs come from; it receives `Costs` as `costs`."""


@dataclass(frozen=True)
class Subject:
    """What a command counts: a model by its name, or a task of the user's own.

    Attributes
    ----------
    counted : CountedModel or CountedTask
        What it counts.
    task : TaskOptions or None
        What runs where something is measured.
    model : str or None
        The name of the model; None where the task itself is counted.
    """

    counted: CountedModel | CountedTask
    task: TaskOptions | None
    model: str | None

    @property
    def arguments(self) -> str:
        """How a command line names it, and what it does."""
        named, usual = self.model, "infer"
        if self.task is not None and named is None:
            named, usual = f"--task {self.task.text}", "train"
        return f"{named}" + ("" if self.counted.kind == usual else f" --kind {self.counted.kind}")

    def workload(self, batch_size: int) -> Workload:
        """What a minibatch of it needs, and what must be said of that on stderr."""
        if self.task is not None and self.model is None:
            return self.task.workload(self.counted.kind, batch_size)
        with Progress("counting"):
            return self.counted.workload(batch_size)


def _subject(
    model: str | None,
    input: str | None,
    kind: str | None,
    optimiser: Any,
    own: str | None,
    settings: tuple[str, ...],
) -> Subject:
    from powerctl.pagoda.counted import CountedModel

    task = _task(own, settings)
    if model is not None:
        counted = CountedModel.of(model, input, kind or "infer", optimiser or "sgd")
        return Subject(counted, task, model)
    if task is None:
        raise click.UsageError("give MODEL, or a task of your own: --task my_task.py")
    if input or optimiser:
        raise click.UsageError("--input and --optimiser are of MODEL: a task has its own")
    return Subject(task.counted(kind or "train"), task, None)


with_subject = option_group(
    "subject",
    _subject,
    click.argument("model", required=False),
    input_option,
    kind_option(show_default="infer; of a task train", help="What it does."),
    click.option(
        "--optimiser",
        type=click.Choice(["sgd", "sgd-momentum", "adam"]),
        show_default="sgd",
        help="Optimiser for training MODEL.",
    ),
    *_task_options,
)
"""Gives a command MODEL and ``--task``: what is counted, and what runs; it receives a `Subject`."""
