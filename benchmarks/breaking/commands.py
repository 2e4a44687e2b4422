"""Doors for command lines: each command of ours, with odd values."""

from __future__ import annotations

import importlib
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.breaking import studio
from benchmarks.breaking.trying import Door

# until they are told to stop; and what starts processes that outlive it, or waits for a person
_FOR_EVER = ("powerctl daemon", "wattfed watch", "wattfed-agent serve", "wattfed-agent top")
_SLOW = ("powerctl characterize", "powerctl roofline measure", "powerctl restore", "wattfed flower")
_LINES = (
    *studio.READS,
    "powerctl boards orin-nano",
    "powerctl modes --board orin-nano --cores 4 --per-axis 3 --limit 5",
    "powerctl presets --board orin-agx --json",
    "powerctl plot --board orin-nano --table table.csv --power-limit 12W --out plot.svg",
    "powerctl twin run --board orin-nano --workload resnet18-train --minibatches 3 --seed 1",
    "powerctl solve --device twin:orin-nano --train resnet18-train --power 12W --cap 5 --seed 1",
    "powerctl solve --device twin:orin-agx --infer mobilenetv3-infer --power 30W --rate 30/s "
    "--latency 200ms --cap 8",
    "powerctl choose --board orin-nano --workload resnet18-train --deadline 2s",
    "powerctl fake-board orin-nx another --jetpack 6",
    "wattfed strategies",
    "wattfed simulate --task noop --fleet fleet.toml --per-round 3 --rounds 1 --name told --seed 2 "
    "--strategy oort(clip=0.9) --power slack --aggregation fedavg --skew dirichlet:0.3 --workers 1 "
    "--clip-norm 1.0 --target accuracy=0.9",
    "wattfed-agent status --socket there.sock",
    "wattfed-agent predict digits --socket there.sock --count 2",
    "wattfed-agent task list --state-dir state",
    "wattfed-agent task remove mine --state-dir state",
    "wattfed keys keys --certificate localhost --node one",
)


def doors(stack: ExitStack) -> Iterator[Door]:
    """A door for each line, and one for each command that no line has."""
    folder = studio.make(stack)
    lines = [shlex.split(line) for line in _LINES]
    for name, path, command in commands():
        begun = [name, *path]
        if not any(line[: len(begun)] == begun for line in lines):
            values = [_value(one) for one in command.params if isinstance(one, click.Argument)]
            lines.append([*begun, *values])
    for line in lines:
        said = " ".join(line)
        if not said.startswith((*_FOR_EVER, *_SLOW)):
            yield Door(said, {"words": line}, partial(_run, folder, line))


def commands() -> Iterator[tuple[str, list[str], click.Command]]:
    """Every command of ours, with the words that call it."""

    def below(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
        if isinstance(command, click.Group):
            for name, one in command.commands.items():
                yield from below(one, [*path, name])
        else:
            yield path, command

    for name, module in studio.COMMANDS.items():
        for path, command in below(importlib.import_module(module).cli, []):
            yield name, path, command


def _value(argument: click.Argument) -> str:
    return str(argument.type.choices[0]) if isinstance(argument.type, click.Choice) else "any"


def _run(folder: Path, line: list[str], case: dict[str, Any]) -> str:
    """Run a changed line, as far as its words are what a shell can give."""
    words = case.get("words")
    words = words if isinstance(words, list) else [words]
    given = [str(word)[:300] for word in words[len(line[:2]) :][:200]]
    if any("\0" in word for word in given):
        return "cannot be given"
    if _is_elsewhere(line, given):
        return "elsewhere by its own word"
    shutil.copytree(folder, ".", symlinks=True, dirs_exist_ok=True)
    return studio.run([*line[:2], *given])


def _is_elsewhere(line: list[str], given: list[str]) -> bool:
    """Whether a path on the line, which is the user's to say, leads out of the folder."""
    paths = ("--out", "--out-dir", "--csv", "--state-dir", "--plot", "--socket")
    pairs = zip([*line[1:2], *given], given, strict=False)
    names = {"powerctl fake-board", "wattfed keys"}
    return any(
        ".." in word or word.startswith("/")
        for option, word in pairs
        if option.split("=")[0] in paths or word.startswith("--out") or " ".join(line[:2]) in names
    )
