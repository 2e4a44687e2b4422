"""Doors for command lines: each command of ours, with odd values."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.breaking import studio
from benchmarks.breaking.trying import Door

_PATHS = ("--out", "--out-dir", "--csv", "--state-dir", "--plot", "--socket", "--root")
_HOSTS = ("--host", "--listen", "--address")
_MAKE_FOLDERS = ("powerctl fake-board", "wattfed keys")
_OF_A_ROOT = ("powerctl daemon", "powerctl restore")
_LONGEST_S = 10.0
_LINES = (
    *studio.READS,
    "powerctl boards orin-nano",
    "powerctl modes --board orin-nano --cores 3 --per-axis 3 --limit 5",
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
    "wattfed keys keys --certificate server=localhost --node one",
    "wattfed-agent top --socket there.sock --frames 1",
    "wattfed-agent top --address 127.0.0.1:9 --ca keys/ca.crt --token-file tokens --every 1s",
    "wattfed-agent serve --device twin:orin-agx --socket a.sock --state-dir state --latency 50ms "
    "--batch 8 --metrics-port 0 --lease 2s --rate-limit "
    "30/s --accelerator cpu --threads 1 --mode MAXN",
    "powerctl daemon --root board --socket d.sock --hold 2s",
    "powerctl restore --root board --as-booted --json",
    "powerctl roofline measure --accelerator cpu --seconds 0.1 --threads 1",
    "powerctl characterize --task digits --vary workers=0,2 --vary batch=16,64 --budget 2s "
    "--out own",
    "wattfed flower --task noop --fleet fleet.toml --per-round 2 --rounds 1",
    "wattfed simulate --task my_task.py --set batch-size=8 --set model-name=small --rounds 1 "
    "--workers 1 --per-round 2",
    "powerctl profile --task my_task.py --set batch-size=8 --device twin:orin-nano --modes 3 "
    "--out own.jsonl",
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
        example = {"words": line, "stop_s": 2.0}
        files = studio.read_by(shlex.join(line), folder)
        yield Door(" ".join(line), example, partial(_run, files, line))


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


def _run(files: dict[str, Path], line: list[str], case: Any) -> str:
    """Run a changed line, as far as its words are what a shell can give."""
    case = case if isinstance(case, dict) else {}
    words = case.get("words")
    words = words if isinstance(words, list) else [words]
    given = [str(word)[:300] for word in words[len(line[:2]) :][:200]]
    if any("\0" in word for word in given):
        return "cannot be given"
    if _is_elsewhere(line, given):
        return "elsewhere by its own word"
    for name, path in files.items():
        studio.put(name, path)
    stop_s = case.get("stop_s")
    is_time = isinstance(stop_s, float) and 0 < stop_s < _LONGEST_S
    return studio.run([*line[:2], *given], stop_s if is_time else 0.5, _LONGEST_S)


def _is_elsewhere(line: list[str], given: list[str]) -> bool:
    """Whether a line, by a word that is the user's to say, leads out of the folder or machine."""
    begun = " ".join(line[:2])
    if begun in _OF_A_ROOT and "--root" not in given:
        return True  # of this machine
    pairs = zip([*line[1:2], *given], given, strict=False)
    return any(
        (".." in word or word.startswith("/"))
        if option in _PATHS or word.startswith("--out") or begun in _MAKE_FOLDERS
        else option in _HOSTS and not word.startswith("127.")
        for option, word in pairs
    )
