"""`powerctl characterize --compare-container`: the same study bare and in a container, in turns."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from powerctl.commands.study_options import SAMPLES
from powerctl.console import Quantity, WholeNumbers
from powerctl.errors import InvalidInput

BARE, CONTAINER = "bare", "container"
_OURS = {"compare_container", "out", "as_json", "data", "cache"}


def run_both(prefix: str, folder: Path, repetitions: int) -> tuple[Path, Path]:
    """Run the command line's study twice, without and with a prefix; returns the two folders.

    Repetition by repetition, the first in turns, so that a slow drift of the machine is not taken
    for the container's. Both load the same samples, and the page cache is emptied as both may.

    Raises
    ------
    InvalidInput
        If the prefix cannot be read, or a run fails; what was done is kept, and gone on with.
    """
    words = _words(prefix)
    context = click.get_current_context()
    asked = [*_arguments(context), "--json"]
    if ":" not in context.params["device"]:  # a simulated board loads nothing
        data = context.params["data"] or str(folder / SAMPLES)
        asked += ["--data", data, "--cache", context.params["cache"].replace("auto", "advise")]
    sides = {BARE: [], CONTAINER: words}
    for repetition in range(repetitions):
        order = [BARE, CONTAINER] if repetition % 2 == 0 else [CONTAINER, BARE]
        for side in order:
            click.echo(f"repetition {repetition + 1} of {repetitions}, {side}", err=True)
            out = ["--out", str(folder / side), "--repetition", str(repetition)]
            _run([*sides[side], "powerctl", "characterize", *asked, *out], side)
    return folder / BARE, folder / CONTAINER


def _words(prefix: str) -> list[str]:
    try:
        words = shlex.split(prefix)
    except ValueError as error:
        raise InvalidInput(f"--compare-container {prefix!r}: {error}") from None
    if not words:
        raise InvalidInput("--compare-container: write what comes before powerctl, as docker run …")
    if shutil.which(words[0]) is None:  # now, not after the first bare run
        raise InvalidInput(f"--compare-container: there is no command {words[0]}")
    return words


def _run(command: list[str], side: str) -> None:
    # the same powerctl as this one, also where its environment is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise InvalidInput(
            f"the study {side} failed with exit code {done.returncode}: {shlex.join(command)}"
        )


def _arguments(context: click.Context) -> list[str]:
    """What was given on the command line, as it would be written again, but for what is ours."""
    found = []
    for option in context.command.params:
        name = option.name or ""
        if name in _OURS or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value, flag = context.params[name], option.opts[-1]
        if value is True:
            found.append(flag)
        else:
            for each in value if option.multiple else (value,):
                found += [flag, _written(option, each)]
    return found


def _written(option: click.Parameter, value: Any) -> str:
    """A value in the words that its option reads."""
    if isinstance(option.type, WholeNumbers):
        return ",".join(map(str, value))
    return f"{value}s" if isinstance(option.type, Quantity) else str(value)  # here all are times
