"""Options that commands share: each group is one decorator, which hands over what they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from powerctl.errors import InvalidInput
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.cost_model import Signature
    from powerctl.pagoda.counted import CountedModel

Command = Callable[..., None]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def _choose(context: click.Context, option: click.Parameter, text: str | None) -> None:
    from powerctl.accelerator import choose

    choose(text or "")


accelerator_option = click.option(
    "--accelerator",
    metavar="auto|cpu|cuda[:N]",
    expose_value=False,
    callback=_choose,
    help="Where models live; auto is the GPU where torch can use one.  [default: auto]",
)
MODELS = "resnet50, torchvision:NAME, pkg.module:make"
_KINDS = click.Choice(["train", "infer"])
_input_option = click.option("--input", help="A sample of an own model: 3,224,224 or 128:int64.")
_l4t_option = click.option("--l4t", help="L4T release, for boards whose clocks changed.")


@dataclass(frozen=True)
class CostOptions:
    """What a command line says of where costs come from; None where it does not say."""

    board: str | None
    l4t: str | None
    workload: str | None
    batch: int | None
    table: str | None
    predictor: str | None
    model: str | None = None
    input: str | None = None
    kind: str | None = None


_COST_OPTIONS = tuple(CostOptions.__dataclass_fields__)


def with_board(command: Command) -> Command:
    """Give a command ``--board`` and ``--l4t``; it receives the `Board` as `board`."""

    @click.option("--board", default="orin-agx", show_default=True, help="Board.")
    @_l4t_option
    @wraps(command)
    def run(board: str, l4t: str | None, **rest: Any) -> None:
        from powerctl.boards import load_board

        command(board=load_board(board, l4t), **rest)

    return run


def with_costs(command: Command) -> Command:
    """Give a command the options that say where costs come from; it receives them as `costs`."""

    @click.option("--board", show_default="orin-agx, or what a file says", help="Board.")
    @_l4t_option
    @click.option("--workload", show_default="resnet18-train", help="What runs: name or .toml.")
    @click.option("--batch", type=click.IntRange(1), help="Batch size.")
    @click.option("--table", help="Take costs from measurements: a CSV or a profile log.")
    @click.option(
        "--predictor",
        help="Take costs from what powerctl fit saved; of --table: yours.",
    )
    @click.option("--model", help=f"Estimate costs from the counts of a model: {MODELS}.")
    @_input_option
    @click.option("--kind", type=_KINDS, show_default="infer", help="What --model does.")
    @wraps(command)
    def run(**given: Any) -> None:
        from powerctl.commands.costs import load_costs

        asked = CostOptions(**{name: given.pop(name) for name in _COST_OPTIONS})
        with Progress("predicting"):
            costs = load_costs(asked)
        command(costs=costs, **given)

    return run


def with_model(command: Command) -> Command:
    """Give a command the argument MODEL, and what it does; it receives them as `counted`."""

    @click.argument("model")
    @_input_option
    @click.option("--kind", type=_KINDS, default="infer", show_default=True, help="What it does.")
    @click.option(
        "--optimiser",
        type=click.Choice(["sgd", "sgd-momentum", "adam"]),
        default="sgd",
        show_default=True,
        help="Of training.",
    )
    @wraps(command)
    def run(model: str, input: str | None, kind: str, optimiser: Any, **rest: Any) -> None:
        command(counted=load_counted(model, input, kind, optimiser), **rest)

    return run


def load_counted(
    model: str, input_text: str | None, kind: str, optimiser: Any = "sgd"
) -> CountedModel:
    """The model that a command line names."""
    from powerctl.pagoda.counted import CountedModel

    return CountedModel.of(model, input_text, kind, optimiser)


def read_counts(texts: Sequence[str]) -> dict[str, Signature]:
    """What roles are estimated to need: each text is ``ROLE=MODEL`` or ``ROLE=MODEL@INPUT``."""
    found = {}
    for text in texts:
        role, _, rest = text.partition("=")
        model, _, input_text = rest.partition("@")
        if role not in ("train", "infer", "background") or not model:
            raise InvalidInput(
                f"cannot read {text!r}; write train=resnet18 or infer=my_pkg.mod:make@3,224,224"
            )
        kind = "train" if role == "train" else "infer"
        found[role] = load_counted(model, input_text or None, kind).signature
    return found


def with_table(command: Command) -> Command:
    """Give a command the argument TABLE, and what it is of; it receives them as `measured`."""

    @click.argument("table")
    @click.option("--board", show_default="orin-agx, or of the log", help="Board.")
    @_l4t_option
    @click.option(
        "--kind",
        type=_KINDS,
        show_default="train, or of the log",
        help="What was measured.",
    )
    @click.option(
        "--batch",
        type=click.IntRange(1),
        show_default="of the table, or 16",
        help="Batch size that was measured; of several, the one predicted by default.",
    )
    @wraps(command)
    def run(
        table: str,
        board: str | None,
        l4t: str | None,
        kind: str | None,
        batch: int | None,
        **rest: Any,
    ) -> None:
        from powerctl.commands.tables import read_measured

        command(measured=read_measured(table, board, l4t, kind, batch), **rest)

    return run
