"""Options that commands share: each group is one decorator, which hands over what they name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from powerctl.reading import read_toml

if TYPE_CHECKING:
    from wattfed.server.comparison.grid import Comparison
    from wattfed.strategies.run_config import RunConfig

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
                type=item.metadata["kind"],
                metavar=item.metadata.get("metavar"),
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


def asked_run(options: Mapping[str, Any]) -> RunConfig:
    """The run that a command's options ask for; the rest is as the app of this folder has it."""
    from wattfed.strategies.run_config import RunConfig, flag

    given = {flag(name): value for name, value in _given(options).items()}
    config = RunConfig.from_flower({**_left_to_app(given), **given})
    settings = {**dict(config.settings), **dict(options["settings"])}
    return replace(config, settings=tuple(sorted(settings.items())))


def _asked_comparison(options: Mapping[str, Any]) -> Comparison:
    """The comparison that a command's options ask for; its runs are as the app of this folder's.

    What the app selects by is of no concern: that is compared.
    """
    from wattfed.server.comparison.grid import Comparison
    from wattfed.strategies.run_config import flag, run_keys

    app = _left_to_app({flag(name) for name in _given(options)})
    common = app.keys() & set(run_keys()) - {"power"}
    of_app = {name: app[flag(name)] for name in Comparison.options() if flag(name) in common}
    settings = {key: app[key] for key in app.keys() - set(run_keys())} | dict(options["settings"])
    return Comparison.of(**{**options, **of_app, "settings": settings})


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that somebody gave, but for settings; the others are as usual."""
    source = click.get_current_context().get_parameter_source
    return {
        name: value
        for name, value in options.items()
        if name != "settings" and source(name) is not ParameterSource.DEFAULT
    }


def config_of_app() -> dict[str, Any] | None:
    """The run config of the Flower App of this folder; None where there is none of wattfed's.

    That is a pyproject.toml whose ServerApp is wattfed's.
    """
    path = Path("pyproject.toml")
    app = read_toml(path).get("tool", {}).get("flwr", {}).get("app", {}) if path.is_file() else {}
    ours = app.get("components", {}).get("serverapp") == "wattfed.server.app:app"
    return dict(app.get("config", {})) if ours else None


def _left_to_app(given: Collection[str]) -> dict[str, Any]:
    """The run config of this folder's app, without what is given in its place."""
    config = config_of_app() or {}
    if not {"target", "target-accuracy"}.isdisjoint(given):  # either replaces both
        given = {*given, "target", "target-accuracy"}
    return {key: value for key, value in config.items() if key not in given}


_COMPARISON: dict[str, dict[str, Any]] = {
    "strategies": {
        "help": "Policies with commas between, such as random,oort(clip=0.9),pace.",
    },
    "power": {
        "help": "Of those that only select: maxn, preset (nvpmodel's for the power limit), fastest "
        "or slack; pace and its like choose modes themselves.",
    },
    "per_round": {"help": "Clients wanted in a round."},
    "seeds": {"type": click.IntRange(1), "help": "From --seed on."},
    "seed": {"type": click.IntRange(0)},
    "target_accuracy": {
        "help": "Count time and energy until here; several with commas: a run stops at the last.",
    },
    "target": {
        "metavar": "METRIC=VALUE",
        "help": "Another metric in place of the target accuracy, such as loss=0.5,0.3.",
    },
    "all_rounds": {"is_flag": True, "help": "Do not stop at the target."},
}
"""What a comparison combines, by the arguments of `Comparison.of`, which has the defaults."""


def comparison_options(leave_out: Collection[str] = ()) -> Callable[[Command], Command]:
    """What a comparison combines, and the run configuration for the rest, but for some options.

    The command receives a `Comparison` as `comparison`, and `baseline` and `jobs`.
    """
    return partial(_with_comparison, leave_out)


def _with_comparison(leave_out: Collection[str], command: Command) -> Command:
    from wattfed.server.comparison.grid import COMMON, REPLACED, Comparison

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
    @run_options(leave_out=(*REPLACED, *leave_out), defaults=vars(COMMON))
    @wraps(command)
    def run(**given: Any) -> None:
        asked = {name: given.pop(name) for name in Comparison.options() if name in given}
        command(comparison=_asked_comparison(asked), **given)

    for name, more in reversed(_COMPARISON.items()):
        usual = Comparison.usual()[name]
        is_shown = usual != "" and usual is not False
        option = click.option(
            f"--{name.replace('_', '-')}", default=usual, show_default=is_shown, **more
        )
        run = option(run)
    return run
