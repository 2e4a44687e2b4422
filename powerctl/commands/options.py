"""Options that commands share: each is declared once, and a group of them arrives as one object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl.console import Quantity
from powerctl.errors import InvalidInput
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.commands.costs import Costs
    from powerctl.commands.tables import Measured
    from powerctl.device import Device
    from powerctl.pagoda.counted import CountedModel
    from powerctl.profiler import Step

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

    device = open_device(spec, board=board.name)
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
    help="Where models live; auto is the GPU where torch can use one.  [default: auto]",
)
settings_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="For the task; repeat."
)
budget_option = click.option(
    "--budget",
    "budget_s",
    type=Quantity("duration"),
    default=math.inf,
    show_default="none",
    help="Time of this run on the device's clock: 90s, 20m, 1h30m.",
)
per_axis_option = click.option(
    "--per-axis", type=click.IntRange(2), help="A sub-grid of so many values an axis."
)
log_board_option = click.option("--board", show_default="orin-agx, or of the log", help="Board.")
_l4t_option = click.option("--l4t", help="L4T release, for boards whose clocks changed.")
input_option = click.option("--input", help="A sample of an own model: 3,224,224 or 128:int64.")


def kind_option(**more: Any) -> Option:
    """The option ``--kind``, which says whether a workload trains or infers."""
    return click.option("--kind", type=click.Choice(["train", "infer"]), **more)


def power_limit_option(**more: Any) -> Option:
    """The option ``--power-limit`` in watts, which a command receives as `power_w`."""
    names = ("--power-limit", "--power", "power_w")
    return click.option(*names, type=Quantity("power"), help="At most: 30, 30W.", **more)


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


def _costs(**given: Any) -> Costs:
    from powerctl.commands.costs import CostSource, load_costs

    with Progress("predicting"):
        return load_costs(CostSource(**given))


with_costs = option_group(
    "costs",
    _costs,
    click.option("--board", show_default="orin-agx, or what a file says", help="Board."),
    _l4t_option,
    click.option("--workload", show_default="resnet18-train", help="What runs: name or .toml."),
    click.option("--batch", type=click.IntRange(1), help="Batch size."),
    click.option("--table", help="Take costs from measurements: a CSV or a profile log."),
    click.option("--predictor", help="Take costs from what powerctl fit saved; of --table: yours."),
    click.option(
        "--model",
        help="Estimate costs from the counts of a model: resnet50, torchvision:NAME, "
        "pkg.module:make.",
    ),
    input_option,
    kind_option(show_default="infer", help="What --model does."),
)
"""Gives a command the options that say where costs come from; it receives `Costs` as `costs`."""


def _counted(model: str, input: str | None, kind: str, optimiser: Any) -> CountedModel:
    from powerctl.pagoda.counted import CountedModel

    return CountedModel.of(model, input, kind, optimiser)


with_model = option_group(
    "counted",
    _counted,
    click.argument("model"),
    input_option,
    kind_option(default="infer", show_default=True, help="What it does."),
    click.option(
        "--optimiser",
        type=click.Choice(["sgd", "sgd-momentum", "adam"]),
        default="sgd",
        show_default=True,
        help="Of training.",
    ),
)
"""Gives a command the argument MODEL, and what it does; it receives a `CountedModel`."""


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
        help="Batch size that was measured; of several, the one predicted by default.",
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
    click.option("--reference", "names", multiple=True, help="Know this workload only; repeat."),
    click.option("--no-reference", is_flag=True, help="Know no other workload."),
)
"""Gives a command what may be known of other workloads, as `references`: names, or None for all."""


@dataclass(frozen=True)
class TaskOptions:
    """A task and its settings, as a command line gives them."""

    text: str
    settings: tuple[str, ...] = ()

    def steps(self, device: Device, kind: str, sizes: Sequence[int]) -> Mapping[int, Step]:
        """What runs a minibatch of each batch size; ended with the command.

        Parameters
        ----------
        device : Device
            Where; a simulated one has the time of a workload, which is said on stderr.
        kind : {"train", "infer"}
            Of the workload that it is measured as.
        sizes : sequence of int
        """
        from powerctl.task.loading import load_task, parse_settings
        from powerctl.task.measuring import steps_of

        if device.is_virtual:
            click.echo(
                f"--task {self.text} runs, but time and power are those of the simulated device's "
                "workload and not of your task: measure it on a Jetson",
                err=True,
            )
        steps = steps_of(load_task(self.text, parse_settings(self.settings)), kind, sizes)
        for step in steps.values():
            click.get_current_context().call_on_close(step.close)
        return steps


def _task(text: str | None, settings: tuple[str, ...]) -> TaskOptions | None:
    if settings and text is None:
        raise click.UsageError("--set is for a task of your own: give --task")
    return None if text is None else TaskOptions(text, settings)


with_task = option_group(
    "task",
    _task,
    click.option("--task", "text", help="Your own: my_task.py, pkg.mod, or either with :Name."),
    settings_option,
    accelerator_option,
)
"""Gives a command ``--task`` and ``--set``; it receives `TaskOptions` as `task`, or None."""
