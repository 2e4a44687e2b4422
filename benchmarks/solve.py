"""How near a solver's answer is to the optimum, and how many modes it profiles for it.

    python -m benchmarks.solve --problem concurrent --train T.csv --infer I.csv --solver default,gmd

Measured tables are replayed. Every solvable combination of the bounds is solved from nothing, by a
campaign solver by look-up after one campaign, and held against brute force: the loss is
time / best - 1, or 1 - rate / best. An unsolved one, or one whose answer breaks a bound, counts as
100 %. Rates do not hold back a slot for a running minibatch unless --guard is given: as published.
All is done twice: on the tables as they are, and screened: with the rows that no neighbour
supports replaced by what the others say there (`powerctl.powertrain.support`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.configurations import (
    PUBLISHED_BOUNDS,
    Bounds,
    Question,
    load_replay,
    read_screened,
    solvable,
)
from benchmarks.predict import prior_hours
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.commands.searching import read_counts
from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import OBJECTIVES, Problem
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Record, Search, Solution
from powerctl.fulcrum.solvers import (
    Solver,
    SolverEntry,
    find_solver,
    solver_names,
)
from powerctl.measurement import MeasurementTable
from powerctl.plugins import split_names
from powerctl.powertrain.reference import Reference
from powerctl.powertrain.reference_fit import build_reference
from powerctl.progress import Progress

_CHUNKS = 16  # of the questions, so that progress shows
_TOLERANCE = 1e-9  # relative, of a bound


@dataclass(frozen=True)
class Outcome:
    """What became of one question; the loss is 100 if it is unsolved."""

    number: int
    solved: bool
    loss_pct: float
    over_power: bool
    over_latency: bool
    modes_profiled: int
    seconds: float


@dataclass(frozen=True)
class Judge:
    """What every process needs to solve and to judge."""

    solver: str
    replay: Replay
    references: tuple[Reference, ...]
    cap: int
    seed: int
    known: Record | None = None  # from a campaign
    expected: Mapping[str, Signature] = field(default_factory=dict)  # by role, from counts

    def make(self, seed: int) -> Solver:
        """The solver with what it may know."""
        return self.entry.make(seed, self.references, self.expected)

    @property
    def entry(self) -> SolverEntry:
        """Of the solver's name."""
        return find_solver(self.solver)

    def solve(self, question: Question) -> Outcome:
        """Solve one question from nothing, or by what the campaign knows."""
        problem, entry = question.problem, self.entry
        solver = self.make(self.seed + question.number)
        cap = entry.cap(problem, self.cap) if self.known is None else entry.probes
        started = time.perf_counter()
        search = Search(problem, self.replay.candidates, self.replay.measure, cap, self.known)
        solution = solver.solve(search)
        seconds = time.perf_counter() - started
        return self._outcome(question, solution, seconds)

    def _outcome(self, question: Question, solution: Solution, seconds: float) -> Outcome:
        """Judge an answer by the table, whatever it says of itself."""
        problem, number = question.problem, question.number
        if solution.mode is None:
            return Outcome(number, False, 100.0, False, False, solution.modes_profiled, seconds)
        mode = self.replay.candidates.index(solution.mode)
        choice = _choice(problem, solution)
        time_s, power_w = (column[mode] for column in self.replay.columns(problem.jobs))
        found = problem.evaluate(time_s, power_w)
        solved = bool(found.feasible[choice])
        shortfall = problem.shortfall(float(found.loss[choice]), question.best_loss)
        figures = problem.figures(time_s, power_w, choice)
        latency_s = problem.limits.get("latency_s", 1.0)
        return Outcome(
            number=number,
            solved=solved,
            loss_pct=100 * shortfall if solved else 100.0,
            over_power=_exceeds(figures["power_w"], problem.power_limit_w),
            over_latency=_exceeds(figures.get("latency_s", 0.0), latency_s),
            modes_profiled=solution.modes_profiled,
            seconds=seconds,
        )


def _choice(problem: Problem, solution: Solution) -> int:
    """Index of the choice that a solution means."""
    sizes = [problem.chosen_sizes(choice) for choice in range(len(problem.choices))]
    return sizes.index(dict(solution.batch_sizes))


def _exceeds(value: float, limit: float) -> bool:
    return value > limit * (1 + _TOLERANCE)


def run_campaign(judge: Judge, problem: Problem) -> tuple[Record, int]:
    """Profile once for all bounds; what is known then, and the modes that it took."""
    entry = judge.entry
    solver = judge.make(judge.seed)
    replay = judge.replay
    search = Search(problem, replay.candidates, replay.measure, entry.cap(problem, judge.cap))
    solver.solve(search)
    return search.record, len(search.profiled)


def outcomes(judge: Judge, questions: Sequence[Question], processes: int) -> Iterator[Outcome]:
    """Solve all, a share in each process; progress goes to stderr."""
    chunks = [questions[i::_CHUNKS] for i in range(_CHUNKS) if questions[i::_CHUNKS]]
    if processes == 1:
        with Progress(judge.solver, len(chunks)) as shown:
            for done, chunk in enumerate(chunks, start=1):
                yield from _solve_chunk(judge, chunk)
                shown.update(done)
        return
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=spawn) as pool,
        Progress(judge.solver, len(chunks), at_once=processes) as shown,
    ):
        futures = [pool.submit(_solve_chunk, judge, chunk) for chunk in chunks]
        for done, future in enumerate(as_completed(futures), start=1):
            yield from future.result()
            shown.update(done)


def _solve_chunk(judge: Judge, chunk: Sequence[Question]) -> list[Outcome]:
    return [judge.solve(question) for question in chunk]


def summarise(found: Sequence[Outcome]) -> dict[str, Any]:
    """Figures over the solvable configurations."""
    loss = np.array([o.loss_pct for o in found])
    solved = np.array([o.solved for o in found])
    modes = np.array([o.modes_profiled for o in found])
    of_solved = loss[solved] if solved.any() else np.array([100.0])
    return {
        "solvable": len(found),
        "solved_pct": 100 * float(solved.mean()),
        "power_violations": sum(o.over_power for o in found),
        "latency_violations": sum(o.over_latency for o in found),
        "loss_median_pct": float(np.median(loss)),
        "loss_mean_pct": float(loss.mean()),
        "loss_p95_pct": float(np.percentile(loss, 95)),
        "loss_max_pct": float(loss.max()),
        "loss_median_solved_pct": float(np.median(of_solved)),
        "loss_mean_solved_pct": float(of_solved.mean()),
        "modes_profiled_mean": float(modes.mean()),
        "modes_profiled_max": int(modes.max()),
        "seconds_per_solve": float(np.mean([o.seconds for o in found])),
        "seconds_per_solve_max": max(o.seconds for o in found),
    }


def evaluate(
    judge: Judge, bounds: Bounds, questions: Sequence[Question], processes: int
) -> dict[str, Any]:
    """Solve every question with one solver."""
    started = time.perf_counter()
    sizes = judge.replay.batch_sizes("infer")
    profiled = 0
    unlimited = bounds.without_limits(sizes)
    cap = min(judge.entry.cap(unlimited, judge.cap), len(judge.replay.candidates))
    if campaign := judge.entry.profiles_once:
        known, profiled = run_campaign(judge, unlimited)
        judge = replace(judge, known=known)
    row = summarise(list(outcomes(judge, questions, processes)))
    for name in ("modes_profiled_mean", "modes_profiled_max"):
        row[name] += profiled
    seconds = time.perf_counter() - started
    return {"solver": judge.solver, "cap": cap, "campaign": campaign, **row, "seconds": seconds}


def evaluate_both(
    judge: Judge, clean: Replay, bounds: Bounds, problems: Sequence[Problem], processes: int
) -> dict[str, Any]:
    """Solve with one solver on the tables as they are, and on the screened ones.

    Figures of these end in ``_screened``. `only_unsupported_pct` is the share of configurations
    that are solvable on the tables as they are alone: by rows that no neighbour supports.
    """
    questions, of_clean = solvable(judge.replay, problems), solvable(clean, problems)
    row = evaluate(judge, bounds, questions, processes)
    again = row
    pairs = ((getattr(replay.record, name) for replay in (judge.replay, clean)) for name in _COSTS)
    if not all(np.array_equal(*pair) for pair in pairs):
        again = evaluate(replace(judge, replay=clean), bounds, of_clean, processes)
    only = {q.number for q in questions} - {q.number for q in of_clean}
    return {
        "configurations": len(problems),
        **row,
        **{f"{name}_screened": again[name] for name in _SCREENED},
        "only_unsupported_pct": 100 * len(only) / len(questions),
    }


def read_references(paths: Sequence[str], board: Board) -> tuple[Reference, ...]:
    """What solvers may know: tables of other workloads, of training if they have no batch sizes."""
    tables = [MeasurementTable.read(path, board.space) for path in paths]
    return tuple(
        build_reference(
            table,
            board,
            name=Path(table.source).stem,
            kind="train" if table.batch_size is None else "infer",
        )
        for table in tables
    )


_COSTS = ("time_s", "power_w")
_SCREENED = ("solvable", "solved_pct", "loss_median_pct", "loss_mean_pct", "loss_max_pct")
_COLUMNS = {
    "solver": "solver",
    "cap": "cap",
    "solved_pct": "solved %",
    "power_violations": "over power",
    "latency_violations": "over latency",
    "loss_median_pct": "median %",
    "loss_mean_pct": "mean %",
    "loss_p95_pct": "p95 %",
    "loss_max_pct": "max %",
    "loss_mean_solved_pct": "mean of solved %",
    "solved_pct_screened": "screened: solved %",
    "loss_mean_pct_screened": "mean %",
    "loss_max_pct_screened": "max %",
    "modes_profiled_mean": "modes",
    "modes_profiled_max": "max modes",
    "seconds": "s",
}


@click.command(help=__doc__)
@click.option("--problem", "kind", required=True, type=click.Choice(list(PUBLISHED_BOUNDS)))
@click.option("--train", help="Table of training, for train and concurrent.")
@click.option("--infer", help="Table of inference, for infer and concurrent.")
@click.option("--prior", "priors", multiple=True, help="Table of another workload to know from.")
@click.option("--counts", multiple=True, help="ROLE=MODEL whose FLOP and bytes may be known.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of all tables.")
@click.option("--power", help="Limits in watts, start:stop:step.  [default: as published]")
@click.option("--rate", help="Requests a second.  [default: as published]")
@click.option("--latency", help="Limits in seconds.  [default: as published]")
@click.option(
    "--solver", "names", default="default", show_default=True, help=", ".join(solver_names())
)
@click.option("--cap", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--objective", default="rate", show_default=True, type=click.Choice(OBJECTIVES))
@click.option("--guard/--no-guard", help="Whether latency counts a running training minibatch.")
@click.option(
    "--grid", default="published", show_default=True, type=click.Choice(["published", "all"])
)
@click.option("--subsample", type=click.IntRange(min=1), help="Configurations drawn at random.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    kind: str,
    train: str | None,
    infer: str | None,
    priors: tuple[str, ...],
    counts: tuple[str, ...],
    board: str,
    power: str | None,
    rate: str | None,
    latency: str | None,
    names: str,
    cap: int,
    objective: str,
    guard: bool,
    grid: str,
    subsample: int | None,
    jobs: int,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes to come
    solvers = [find_solver(name).name for name in split_names(names)]
    home = load_board(board)
    replay, clean = (
        load_replay(kind, {"train": train, "infer": infer}, home, grid, read)
        for read in (MeasurementTable.read, read_screened)
    )
    ranges = {"power": power, "rate": rate, "latency": latency}
    bounds = Bounds.parse(kind, ranges, objective, guard)
    problems = bounds.problems(replay.batch_sizes("infer"), subsample, seed)
    n_solvable, n_clean = (len(solvable(each, problems)) for each in (replay, clean))
    click.echo(
        f"{len(problems)} configurations, {n_solvable} solvable ({n_clean} screened), "
        f"{len(replay.candidates)} modes of {board}",
        err=True,
    )
    if not (n_solvable and n_clean):
        raise InvalidInput("no mode meets the bounds of any configuration; widen the ranges")
    references, expected = read_references(priors, home), read_counts(counts)
    rows = []
    for name in solvers:
        judge = Judge(name, replay, references, cap, seed, expected=expected)
        rows.append(evaluate_both(judge, clean, bounds, problems, jobs))
    console.print_table(list(_COLUMNS.values()), [[row[name] for name in _COLUMNS] for row in rows])
    click.echo(
        f"loss of {problems[0].goal} against brute force, over {n_solvable} solvable "
        f"configurations of {len(problems)} ({n_clean} screened); unsolved count as 100 %"
    )
    click.echo(
        f"{rows[0]['only_unsupported_pct']:.1f} % of them only an unsupported row could solve; "
        f"the priors took {prior_hours(map(MeasurementTable.read, priors)):.0f} h of the board"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
