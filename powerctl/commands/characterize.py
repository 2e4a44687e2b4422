"""`powerctl characterize`: how loading, storage, batch and mode shape what a workload costs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from powerctl import console
from powerctl.commands.options import budget_option, json_option
from powerctl.commands.study_display import (
    comparison_content,
    plan_content,
    print_comparison,
    print_plan,
    print_study,
    study_content,
)
from powerctl.commands.study_options import SAMPLES, BenchOptions, Varying, with_bench, with_varying
from powerctl.console import Quantity, WholeNumbers
from powerctl.errors import InvalidInput
from powerctl.progress import Progress
from powerctl.stopping import stopping_cleanly, this_command

if TYPE_CHECKING:
    from powerctl.characterization.running import StudyProgress

_BARE, _CONTAINER = "bare", "container"
# options of this command that each side is given anew, or not at all
_OURS = {"compare_container", "out", "as_json", "data", "cache"}

_EXAMPLES = """\b
Examples:
  What would run here, and how long; then the study, with its report in the folder:
    powerctl characterize --out study --plan
    powerctl characterize --out study
  A model of your own, on generated pictures of the shape that it takes:
    powerctl characterize --model my_pkg.my_mod:make --input 3,224,224 --out mine
  Workers and batch sizes, each with each; samples on another disc too:
    powerctl characterize --task digits --vary workers=0,2 --vary batch=16,64 --grid --out grid
    powerctl characterize --vary storage=files,files@/media/card --out discs
  Some modes of a Jetson; the presets and one more mode of a simulated one:
    powerctl characterize --device jetson --vary workers --vary mode=MAXN,MODE_30W --out board
    powerctl characterize --device twin:orin-agx --workload resnet18-train \\
      --vary workers --vary storage --vary mode=presets,12c/1804/1300/3199 --out twin
  The same bare and in a container, which must see the folder; or two studies that there are:
    powerctl characterize --task digits --vary workers --out both \\
      --compare-container "docker run --rm -v $PWD:$PWD -w $PWD wattfed-client"
    powerctl characterize --compare study-jp5 study-jp6 --out difference
Run the same command again to go on with a study that was stopped, or to add levels to it.
"""


@click.command("characterize", epilog=_EXAMPLES)
@with_bench
@with_varying
@budget_option
@click.option("--plan", "only_plan", is_flag=True, help="Show what would run, and how long.")
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(file_okay=False, path_type=Path),
    help="Run nothing: compare the studies of two folders.",
)
@click.option(
    "--compare-container",
    metavar="PREFIX",
    help="Run it twice, bare and behind a command such as 'docker run ... IMAGE', and compare.",
)
@click.option("--out", type=click.Path(file_okay=False), required=True, help="Folder of the study.")
@click.option("--repetition", type=click.IntRange(0), hidden=True, help="Run this one alone.")
@json_option
def characterize(
    options: BenchOptions,
    varying: Varying,
    budget_s: float,
    only_plan: bool,
    compare: tuple[Path, Path] | None,
    compare_container: str | None,
    out: str,
    repetition: int | None,
    as_json: bool,
) -> None:
    """Study how loading, storage, batch size and power mode shape time and energy.

    One factor is varied at a time, each configuration runs several times, and the report says in
    words only what those support. Every run is on disc before the next begins.
    """
    folder = Path(out)
    if compare is not None and compare_container is not None:
        raise click.UsageError("--compare is of studies that there are; leave one of the two out")
    if compare_container is not None and not only_plan:
        compare = _run_both(compare_container, folder, varying.repetitions)
    if compare is not None:
        _compare(compare, folder, as_json)
        return

    from powerctl.characterization.plan import described
    from powerctl.characterization.report import write_report
    from powerctl.characterization.running import expected, identity_of, run_study
    from powerctl.characterization.study_log import StudyLog, study_path

    path = study_path(folder)

    def to_go_on() -> str:
        return f"{path} holds the runs that were done; to go on: {this_command()}"

    with stopping_cleanly(to_go_on) as check, ExitStack() as held:
        with Progress("preparing"):
            bench = held.enter_context(closing(options.open(folder, varying.seed)))
            plan = varying.plan(bench)
            expected_s = expected(bench, plan)
        if only_plan:
            left = StudyLog.read(path).missing(plan.runs()) if path.exists() else plan.runs()
            content = plan_content(plan, left, expected_s, bench.is_virtual)
            console.print_json(content) if as_json else print_plan(content)
            return

        def tell(now: StudyProgress) -> None:
            check()
            cell = "" if now.next is None else described(now.next, plan.baseline) or "baseline"
            left_s = None if bench.is_virtual else now.seconds_left
            shown.update(now.done, total=now.total, note=cell, left_s=left_s)

        with (
            closing(StudyLog.open(path, identity_of(bench, plan))) as log,
            Progress("runs") as shown,
        ):
            shown.begin(len(log.entries))
            last = run_study(
                bench, plan, log, expected_s, budget_s=budget_s, only=repetition, progress=tell
            )
    content = study_content(log, write_report(log, folder), last.left_out)
    console.print_json(content) if as_json else print_study(content)


def _compare(folders: tuple[Path, Path], out: Path, as_json: bool) -> None:
    from powerctl.characterization.comparing import compare_studies, write_comparison

    found = compare_studies(*folders)
    files = write_comparison(found, out)
    content = comparison_content(found, files)
    console.print_json(content) if as_json else print_comparison(content)


def _run_both(prefix: str, folder: Path, repetitions: int) -> tuple[Path, Path]:
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
    sides = {_BARE: [], _CONTAINER: words}
    for repetition in range(repetitions):
        order = [_BARE, _CONTAINER] if repetition % 2 == 0 else [_CONTAINER, _BARE]
        for side in order:
            click.echo(f"repetition {repetition + 1} of {repetitions}, {side}", err=True)
            out = ["--out", str(folder / side), "--repetition", str(repetition)]
            _run_side([*sides[side], "powerctl", "characterize", *asked, *out], side)
    return folder / _BARE, folder / _CONTAINER


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


def _run_side(command: list[str], side: str) -> None:
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
