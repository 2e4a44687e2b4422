"""`powerctl solve`: the mode and batch sizes that meet the bounds, from few measured modes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import json_option, read_counts
from powerctl.commands.problem import AskedProblem, with_problem
from powerctl.commands.steps import settings_option
from powerctl.errors import InvalidInput
from powerctl.progress import Progress
from powerctl.quantities import spoken
from powerctl.stopping import stopping_cleanly, this_command

if TYPE_CHECKING:
    from powerctl.commands.searching import SearchKeeper
    from powerctl.fulcrum.search import Search, Solution
    from powerctl.fulcrum.solver import Solver
    from powerctl.fulcrum.sources import Source
    from powerctl.powertrain.reference import Reference

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
  Minibatches of your own task:
    powerctl solve --device twin:orin-agx --train resnet18-train --task my_task.py --power 30
What runs decides the problem: --train alone, --infer alone, both, or --infer and --background.
"""


@click.command(epilog=_EXAMPLES)
@with_problem
@click.option("--device", "spec", help="twin:BOARD, jetson or table:FILE.csv; none for tables.")
@click.option("--board", show_default="orin-agx, or of the log", help="Board of tables.")
@click.option("--task", "tasks", multiple=True, help="[ROLE=]my_task.py, as in profile.")
@settings_option
@click.option("--per-axis", type=click.IntRange(2), help="A sub-grid of so many values an axis.")
@click.option(
    "--solver", "solver_name", default="default", show_default=True, help="Or gmd, als, random-50."
)
@click.option(
    "--cap", type=click.IntRange(0), default=15, show_default=True, help="Modes measured at most."
)
@click.option("--reference", "names", multiple=True, help="Know this workload only; repeat.")
@click.option("--no-reference", is_flag=True, help="Know no other workload.")
@click.option("--counts", multiple=True, help="ROLE=MODEL: know its FLOP and bytes; repeat.")
@click.option("--known", multiple=True, help="Measured before: a folder of --out, or ROLE=FILE.")
@click.option("--out", help="Folder for what is measured, a CSV for each role.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Write a PNG of the search.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of solver and twin.")
@json_option
def solve(
    asked: AskedProblem,
    spec: str | None,
    board: str | None,
    tasks: tuple[str, ...],
    settings: tuple[str, ...],
    per_axis: int | None,
    solver_name: str,
    cap: int,
    names: tuple[str, ...],
    no_reference: bool,
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
    from powerctl.commands.sources import open_source, tasks_by_role
    from powerctl.fulcrum.facts import record_of
    from powerctl.fulcrum.search import Search
    from powerctl.fulcrum.solvers import find_solver, knowing

    for path in filter(None, (out, plot)):  # before the search, not after an hour of it
        if not Path(path).absolute().parent.is_dir():
            raise InvalidInput(f"{path}: there is no folder {Path(path).parent}")
    references = _references(names, no_reference)
    entry = find_solver(solver_name)
    solver = knowing(entry.make(seed, references), read_counts(counts))
    source = open_source(
        asked.roles, spec, board, per_axis, tasks_by_role(tasks, settings, asked.roles), seed
    )
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


def _references(names: tuple[str, ...], none: bool) -> Sequence[Reference] | None:
    """What the solver may know other workloads from; None for all that there are."""
    from powerctl.powertrain.reference import known_references

    if names and none:
        raise click.UsageError("give --reference or --no-reference, not both")
    return known_references(() if none else names) if names or none else None


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
