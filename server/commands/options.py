"""Options that commands share: each group is one decorator, which hands over what they name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any

import click

Command = Callable[..., None]

STRATEGIES = "random,fedcs,oort,tifl,power-of-choice,eafl,pace"
_COMPARED_BY_DEFAULT = {"fleet": "hundred-jetsons", "rounds": 120}


def run_options(
    leave_out: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Command], Command]:
    """One option per field of the run configuration; some may be left out or start elsewhere."""
    from wattfed.strategies.run_config import RunConfig, flag

    def decorate(command: Command) -> Command:
        for item in reversed(fields(RunConfig)):
            if flag(item.name) in leave_out:
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


def comparison_options(command: Command) -> Command:
    """Give a command what a comparison combines, and the run configuration for the rest.

    It receives a `Comparison` as `comparison`, and `baseline` and `jobs`.
    """
    from wattfed.server.comparison.grid import REPLACED

    @click.option(
        "--strategies",
        default=STRATEGIES,
        show_default=True,
        help="Policies with commas between, such as random,oort(clip=0.9),pace.",
    )
    @click.option(
        "--power",
        default="maxn,slack",
        show_default=True,
        help="Of those that only select: maxn, preset (nvpmodel's for the power limit), fastest "
        "or slack; pace and its like choose modes themselves.",
    )
    @click.option("--per-round", default="10", show_default=True, help="Clients wanted in a round.")
    @click.option(
        "--seeds", type=click.IntRange(1), default=3, show_default=True, help="From --seed on."
    )
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @click.option(
        "--target-accuracy",
        default="0.9",
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
    @run_options(leave_out=REPLACED, defaults=_COMPARED_BY_DEFAULT)
    @wraps(command)
    def run(**given: Any) -> None:
        from wattfed.server.comparison.grid import Comparison, split_names, split_numbers
        from wattfed.strategies.run_config import RunConfig, flag
        from wattfed.strategies.target import Goal

        own = {
            item.name: given.pop(item.name)
            for item in fields(RunConfig)
            if flag(item.name) not in REPLACED
        }
        seed = given.pop("seed")
        accuracies = split_numbers(given.pop("target_accuracy"), float, "--target-accuracy")
        target = given.pop("target")
        goal = Goal.parse(target) if target else Goal("", accuracies)
        comparison = Comparison(
            base=RunConfig(**own),
            strategies=split_names(given.pop("strategies")),
            powers=split_names(given.pop("power")),
            per_round=split_numbers(given.pop("per_round"), int, "--per-round"),
            seeds=tuple(range(seed, seed + given.pop("seeds"))),
            targets=goal.levels,
            metric=goal.metric,
            all_rounds=given.pop("all_rounds"),
        )
        command(comparison=comparison, **given)

    return run
