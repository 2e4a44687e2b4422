"""Options that commands share: each group is one decorator, which hands over what they name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any

import click

Command = Callable[..., None]
_SETTINGS = "For a task of your own: an argument of its functions; may be given often."


def run_options(
    leave_out: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Command], Command]:
    """One option per field of the run configuration; some may be left out or start elsewhere."""
    from wattfed.strategies.run_config import RunConfig, flag

    def decorate(command: Command) -> Command:
        for item in reversed(fields(RunConfig)):
            if flag(item.name) in leave_out:
                continue
            if item.name == "settings":
                command = settings_option(command)
                continue
            command = click.option(
                f"--{flag(item.name)}",
                type=type(item.default),
                is_flag=isinstance(item.default, bool),
                default=(defaults or {}).get(item.name, item.default),
                show_default=item.default != "" and item.default is not False,
                help=item.metadata["about"],
            )(command)
        return command

    return decorate


def settings_option(command: Command) -> Command:
    """Give a command ``--set KEY=VALUE``, for a task of the user's own."""

    @click.option("--set", "texts", multiple=True, metavar="KEY=VALUE", help=_SETTINGS)
    @wraps(command)
    def run(texts: tuple[str, ...], **rest: Any) -> None:
        from powerctl.task.loading import parse_settings

        command(settings=tuple(sorted(parse_settings(texts).items())), **rest)

    return run


def comparison_options(command: Command) -> Command:
    """Give a command what a comparison combines, and the run configuration for the rest.

    It receives a `Comparison` as `comparison`, and `baseline` and `jobs`.
    """
    from wattfed.server.comparison.grid import COMMON, REPLACED, Comparison

    usual = Comparison.usual()

    @click.option(
        "--strategies",
        default=usual["strategies"],
        show_default=True,
        help="Policies with commas between, such as random,oort(clip=0.9),pace.",
    )
    @click.option(
        "--power",
        default=usual["power"],
        show_default=True,
        help="Of those that only select: maxn, preset (nvpmodel's for the power limit), fastest "
        "or slack; pace and its like choose modes themselves.",
    )
    @click.option(
        "--per-round",
        default=usual["per_round"],
        show_default=True,
        help="Clients wanted in a round.",
    )
    @click.option(
        "--seeds",
        type=click.IntRange(1),
        default=usual["seeds"],
        show_default=True,
        help="From --seed on.",
    )
    @click.option("--seed", type=click.IntRange(0), default=usual["seed"], show_default=True)
    @click.option(
        "--target-accuracy",
        default=usual["target_accuracy"],
        show_default=True,
        help="Count time and energy until here; several with commas: a run stops at the last.",
    )
    @click.option(
        "--target",
        default="",
        metavar="METRIC=VALUE",
        help="Another metric in place of the target accuracy, such as loss=0.5,0.3.",
    )
    @click.option("--all-rounds", is_flag=True, help="Do not stop at the target.")
    @click.option(
        "--baseline",
        default="",
        metavar="STRATEGY[:POWER]",
        help="What ratios are to; by default random:maxn.",
    )
    @click.option(
        "--jobs",
        type=click.IntRange(0),
        default=0,
        show_default="as many as there are cores",
        help="Runs at a time, each in a process of its own.",
    )
    @run_options(leave_out=REPLACED, defaults=vars(COMMON))
    @wraps(command)
    def run(**given: Any) -> None:
        asked = {name: given.pop(name) for name in Comparison.options()}
        command(comparison=Comparison.of(**asked), **given)

    return run
