"""What `powerctl characterize` varies: the factors and levels of a command line, as a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from powerctl.commands.options import Command
from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from powerctl.characterization.plan import Factor, Level, Plan
    from powerctl.characterization.running import Bench


@dataclass(frozen=True)
class Varying:
    """What a command line says of factors, levels and repetitions."""

    vary: tuple[str, ...]
    fix: tuple[str, ...]
    grid: bool
    repetitions: int
    epochs: int
    seed: int

    def plan(self, bench: Bench) -> Plan:
        """The plan for a bench, whose usual levels are taken where nothing is said."""
        from powerctl.characterization.plan import Plan, factor

        baseline = bench.baseline
        for text in self.fix:
            name, levels = _named(text)
            if len(levels) != 1 or name == "infer-batch":
                raise InvalidInput(f"--fix {text}: write one level of a factor, such as workers=2")
            baseline = factor(name).set(baseline, _levels(bench, factor(name), levels)[0])
        asked = dict(map(_named, self.vary)) or {name: [] for name in bench.levels}
        levels_of: dict[str, Sequence[Level]] = {}
        for name, texts in asked.items():
            if not texts and name not in bench.levels:
                factor(name)  # there may be no such factor at all
                raise InvalidInput(f"--vary {name}: say which levels, such as {name}=1,2")
            levels_of[name] = _levels(bench, factor(name), texts) if texts else bench.levels[name]
        return Plan(baseline, levels_of, self.grid, self.repetitions, self.epochs, self.seed)


def with_varying(command: Command) -> Command:
    """Give a command the options that say what varies; it receives them as `varying`."""

    @click.option(
        "--vary",
        multiple=True,
        metavar="FACTOR[=LEVELS]",
        help="Only this: workers=0,1,4, mode=presets or mode=grid:3, ...; repeat.",
    )
    @click.option(
        "--fix", multiple=True, metavar="FACTOR=LEVEL", help="Where a factor stays; repeat."
    )
    @click.option("--grid", is_flag=True, help="Each level with each of the other factors.")
    @click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True)
    @click.option(
        "--epochs", type=click.IntRange(2), default=3, show_default=True, help="Of a run."
    )
    @click.option("--seed", type=int, default=0, show_default=True, help="Of order and weights.")
    @wraps(command)
    def run(**given: Any) -> None:
        names = Varying.__dataclass_fields__
        command(varying=Varying(**{name: given.pop(name) for name in names}), **given)

    return run


def _named(text: str) -> tuple[str, list[str]]:
    name, _, levels = text.partition("=")
    return name.strip(), [level.strip() for level in levels.split(",") if level.strip()]


def _levels(bench: Bench, factor: Factor, texts: Sequence[str]) -> list[Level]:
    """Levels as configurations hold them, each once."""
    found: list[Level] = []
    for text in texts:
        if factor.name == "mode":
            found += bench.mode_levels(text)
        elif factor.name == "storage":
            found.append(text)
        elif factor.name == "observer" and text in ("on", "off"):
            found.append(text == "on")
        elif factor.name != "observer" and text.isdecimal():
            found.append(int(text))
        else:
            raise InvalidInput(f"cannot read {factor.name} {text!r}")
    return list(dict.fromkeys(found))
