"""`powerctl solve`: the mode and batch sizes that meet the bounds, from few measured modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    check_folder_of,
    json_option,
    log_board_option,
    option_group,
    per_axis_option,
    power_limit_option,
    seed_option,
    settings_option,
    with_references,
)
from powerctl.commands.own_task import TaskOptions
from powerctl.console import Quantity, WholeNumbers
from powerctl.progress import Progress
from powerctl.quantities import spoken
from powerctl.stopping import stopping_cleanly, this_command

if TYPE_CHECKING:
    from powerctl.commands.searching import SearchKeeper
    from powerctl.fulcrum.problems import Problem
    from powerctl.fulcrum.search import Search, Solution
    from powerctl.fulcrum.solvers import Solver
    from powerctl.fulcrum.sources import Source

_EXAMPLES = """\b
Examples:
  The fastest training within 30 W, 15 modes measured at most:
    powerctl solve --device twin:orin-agx --train resnet18-train --power 30
  Most training beside an inference that must answer within 500 ms, and a picture of the search:
    powerctl solve --device twin:orin-agx --train resnet18-train --infer mobilenetv3-infer \\
      --power 30 --rate 60 --latency 500ms --out measured --plot search.png
  The same for more requests, from what is measured already:
    powerctl solve --device twin:orin-agx --train resnet18-train --infer mobilenetv3-infer \\
      --power 30 --rate 90 --latency 500ms --known measured --out measured
  A network that powerctl knows nothing of but its layers:
    powerctl solve --device twin:orin-agx --train resnet18-train --counts train=resnet18 --power 30
  On measured tables:
    powerctl solve --train train.csv --infer infer.csv --power 30 --rate 60 --latency 500ms
  Your own task; and beside an inference:
    powerctl solve --device twin:orin-agx --task my_task.py --power 30
    powerctl solve --device twin:orin-agx --task train=my_task.py --infer mobilenetv3-infer \\
      --power 30 --rate 60 --latency 500ms
What runs decides the problem: --train alone, --infer alone, both, or --infer and --background.
"""


# from a role, and the batch sizes asked for, to those that can be measured
MeasurableSizes = Callable[[str, "tuple[int, ...] | None"], tuple[int, ...]]


@dataclass(frozen=True)
class AskedProblem:
    """What a command line says of a problem; None where it does not say.

    Which problem it is follows from the roles that are given. Raises `click.UsageError` for flags
    that make no problem together.
    """

    train: str | None
    infer: str | None
    background: str | None
    power_w: float
    rate_hz: float | None
    latency_s: float | None
    batch: tuple[int, ...] | None
    background_batch: tuple[int, ...] | None
    background_latency_s: float | None
    energy_j: float
    objective: str | None
    guard: bool
    tasks: Mapping[str, TaskOptions]

    def __post_init__(self) -> None:
        if not self.train and not self.infer:
            raise click.UsageError("give --train, --infer or both, or --task: what runs")
        if self.background and not (self.infer and not self.train):
            raise click.UsageError("--background goes with --infer, and without --train")
        if self.infer and (self.rate_hz is None or self.latency_s is None):
            raise click.UsageError("--infer needs --rate and --latency: what it has to serve")
        both = self.train and self.infer
        for flag, given, role, needed in (
            ("--rate", self.rate_hz, self.infer, "--infer"),
            ("--latency", self.latency_s, self.infer, "--infer"),
            ("--batch", self.batch, self.infer, "--infer"),
            ("--objective", self.objective, both, "--train and --infer"),
            ("--background-batch", self.background_batch, self.background, "--background"),
            ("--background-latency", self.background_latency_s, self.background, "--background"),
        ):
            if given is not None and not role:
                raise click.UsageError(f"{flag} means nothing here: give {needed}")

    @property
    def roles(self) -> dict[str, str]:
        """What runs in each role that is given: a workload, or a table of it."""
        all_roles = {"train": self.train, "infer": self.infer, "background": self.background}
        return {role: what for role, what in all_roles.items() if what is not None}

    def problem(self, sizes: MeasurableSizes) -> Problem:
        """Make the problem, of those batch sizes that can be measured."""
        from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone, TwoInferences

        if self.rate_hz is None or self.latency_s is None:
            return TrainAlone(self.power_w, energy_limit_j=self.energy_j)
        infer = sizes("infer", _sorted(self.batch))
        served = (self.power_w, self.rate_hz, self.latency_s, infer)
        if self.background:
            return TwoInferences(
                *served,
                sizes("background", _sorted(self.background_batch)),
                self.background_latency_s or math.inf,
                guard=self.guard,
                energy_limit_j=self.energy_j,
            )
        if not self.train:
            return InferAlone(*served, energy_limit_j=self.energy_j)
        return Concurrent(
            *served, self.objective or "rate", guard=self.guard, energy_limit_j=self.energy_j
        )


def _sorted(sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sorted(sizes))


def _asked(tasks: tuple[str, ...], settings: tuple[str, ...], **given: Any) -> AskedProblem:
    """The problem, in which a task without a workload is what runs in its role."""
    roles = [role for role in ("train", "infer", "background") if given[role] is not None]
    found = {}
    for text in tasks:
        role, _, name = text.rpartition("=")
        role = role or (roles[0] if len(roles) == 1 else "" if roles else "train")
        if role not in ("train", "infer", "background"):
            raise click.UsageError(
                f"--task {text}: write ROLE=my_task.py, ROLE of train, infer, background"
            )
        found[role] = TaskOptions(name, settings)
        given[role] = given[role] or name
    if settings and not found:
        raise click.UsageError("--set is for a task of your own: give --task")
    return AskedProblem(**given, tasks=found)


with_problem = option_group(
    "asked",
    _asked,
    click.option("--train", help="The workload that trains, or its table (.csv, .jsonl)."),
    click.option("--infer", help="The workload that serves requests, or its table."),
    click.option("--background", help="A second, less urgent inference beside --infer."),
    power_limit_option(required=True),
    click.option("--rate", "rate_hz", type=Quantity("rate"), help="Requests a second: 60, 90/min."),
    click.option(
        "--latency", "latency_s", type=Quantity("time"), help="Latency limit of a request: 100ms."
    ),
    click.option(
        "--batch",
        type=WholeNumbers(),
        show_default="of the table, or 1,4,16,32,64",
        help="Batch sizes of --infer to choose from.",
    ),
    click.option(
        "--background-batch",
        type=WholeNumbers(),
        show_default="as --batch",
        help="Batch sizes of --background.",
    ),
    click.option(
        "--background-latency",
        "background_latency_s",
        type=Quantity("time"),
        help="Latency limit of a batch of --background: 500ms.",
    ),
    click.option(
        "--energy-limit",
        "--energy",
        "energy_j",
        type=Quantity("energy"),
        default=math.inf,
        show_default="none",
        help="Energy limit: 3, 3J, 2kJ; for a minibatch or batch, or a cycle of both.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["rate", "count"]),
        show_default="rate",
        help="Maximise training per second, or per cycle as in Fulcrum's paper.",
    ),
    click.option(
        "--guard/--no-guard",
        default=True,
        show_default=True,
        help="Whether latency includes waiting for a running minibatch of the other.",
    ),
    click.option(
        "--task", "tasks", multiple=True, help="Your own task: [ROLE=]my_task.py; can be repeated."
    ),
    settings_option,
)
"""Gives a command the flags of a problem; it receives an `AskedProblem` as `asked`."""


@click.command("solve", epilog=_EXAMPLES)
@with_problem
@click.option(
    "--device", "spec", help="twin:BOARD, jetson or table:FILE.csv; not needed for tables."
)
@log_board_option
@per_axis_option
@click.option(
    "--solver",
    "solver_name",
    default="default",
    show_default=True,
    help="Solver: default, gmd, als, random-50.",
)
@click.option(
    "--cap", type=click.IntRange(0), default=15, show_default=True, help="Most modes to measure."
)
@with_references
@click.option(
    "--counts",
    multiple=True,
    help="Use the FLOP and bytes of a model: ROLE=MODEL; can be repeated.",
)
@click.option(
    "--known", multiple=True, help="Earlier measurements: a folder of --out, or ROLE=FILE."
)
@click.option("--out", help="Folder for the measurements, a CSV file for each role.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Write a PNG of the search.")
@seed_option("Random seed of solver and twin.")
@json_option
def solve_command(
    asked: AskedProblem,
    spec: str | None,
    board: str | None,
    per_axis: int | None,
    solver_name: str,
    cap: int,
    references: tuple[str, ...] | None,
    counts: tuple[str, ...],
    known: tuple[str, ...],
    out: str | None,
    plot: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find the best mode and batch sizes within power, latency and energy limits.

    The solver measures a few modes and answers with the best that it measured. Exit code 1 if
    nothing keeps the bounds.
    """
    from powerctl.commands import searching
    from powerctl.fulcrum.replay import record_of
    from powerctl.fulcrum.search import Search
    from powerctl.fulcrum.solvers import find_solver
    from powerctl.powertrain.reference import known_references

    check_folder_of(out, plot)
    entry = find_solver(solver_name)
    known_workloads = None if references is None else known_references(references)
    solver = entry.make(seed, known_workloads, searching.read_counts(counts))
    source = searching.open_source(asked.roles, spec, board, per_axis, asked.tasks, seed)
    problem = asked.problem(source.sizes)
    facts = searching.read_known(known, source.board)
    keeper = searching.SearchKeeper(out, facts)
    search = Search(
        problem,
        source.candidates,
        source.measure,
        entry.cap(problem, cap),
        record_of(facts),
    )
    solution = _run(search, solver, source, keeper)
    if plot:
        from powerctl.fulcrum.search_plot import plot_search

        plot_search(Path(plot), search, solution, f"{entry.name}: {source.name}", source.replay)
    more = {"source": source.name, "solver": entry.name, "device_time_s": source.seconds}
    if as_json:
        console.print_json(searching.as_json(search, solution) | more)
    else:
        searching.print_search(search)
        if solution.solved:
            searching.print_answer(problem, solution)
        _print_end(solution, source, entry.name, [path for path in (out, plot) if path])
    if not solution.solved:
        raise click.ClickException(searching.miss_of(search))


def _run(search: Search, solver: Solver, source: Source, keeper: SearchKeeper) -> Solution:
    """Solve, and restore the device; a signal ends the command with what was measured saved."""
    from powerctl.commands.searching import best_so_far

    def to_go_on() -> str:
        keeper.save(search)
        known = ("--known", keeper.out) if keeper.out else ()
        return (
            f"the device is restored; {len(search.profiled)} modes were measured, "
            f"{best_so_far(search)}{'; to go on: ' + this_command(*known) if known else ''}"
        )

    with stopping_cleanly(to_go_on) as check, Progress("modes measured") as shown:

        def tell(now: Search) -> None:
            keeper.tell(now, shown)
            check()

        search.progress = tell
        try:
            return solver.solve(search)
        finally:
            source.restore()


def _print_end(solution: Solution, source: Source, solver: str, saved: Sequence[str]) -> None:
    took = f" in {spoken(source.seconds, 's')} of {source.clock}" if source.seconds else ""
    click.echo(
        f"{solver} measured {solution.modes_profiled} modes{took} and ended: {solution.reason}; "
        f"{source.name}"
    )
    if saved:
        click.echo(f"saved in {', '.join(saved)}")
