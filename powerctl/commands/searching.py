"""What `powerctl solve` measures on, keeps and tells: while it searches, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from powerctl import console
from powerctl.boards import Board
from powerctl.commands.own_task import TaskOptions
from powerctl.commands.tables import check_same, read_measured
from powerctl.cost_model import Signature
from powerctl.device import Device
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.outcomes import (
    Outcome,
    figure_name,
    figure_text,
    nearest_miss,
    outcomes,
)
from powerctl.fulcrum.problems import Problem
from powerctl.fulcrum.replay import Facts, facts_of, facts_of_tables, tables_of
from powerctl.fulcrum.search import Candidates, Search, Solution
from powerctl.fulcrum.sources import DeviceSource, Source, TableSource, kind_of, workload_of
from powerctl.measurement import MeasurementTable
from powerctl.profiler import Step
from powerctl.progress import Progress
from powerctl.quantities import spoken
from powerctl.workload import Workload

ROLES = ("train", "infer", "background")
_TABLES = (".csv", ".jsonl")


def open_source(
    roles: Mapping[str, str],
    spec: str | None,
    board: str | None,
    per_axis: int | None,
    tasks: Mapping[str, TaskOptions],
    seed: int,
) -> Source:
    """Open the tables, or the device, on which a command line has modes measured.

    Parameters
    ----------
    roles : mapping of str to str
        A workload or a table for each role.
    spec : str or None
        The device; None for tables.
    board : str or None
        Board of tables.
    per_axis : int or None
        Only a sub-grid of so many values an axis.
    tasks : mapping of str to TaskOptions
        What runs on a device, of the roles that have a task of the user's own.
    seed : int
        Of the noise of a twin.
    """
    if spec is not None and spec.startswith("table:"):
        roles, spec = _of_table_device(roles, spec), None
    tables = [role for role, what in roles.items() if what.endswith(_TABLES)]
    if spec is None:
        if len(tables) < len(roles):
            raise click.UsageError("workloads need --device; or give each role its table")
        if tasks:
            raise click.UsageError("--task needs --device: tables are replayed")
        return _open_tables(roles, board, per_axis)
    if tables:
        raise click.UsageError(f"--{tables[0]} is a table, which needs no --device; give workloads")
    workloads = {}
    for role, name in roles.items():
        own = tasks.get(role)
        what = name if own is None or own.text != name else own.workload(kind_of(role), None)
        workloads[role] = workload_of(role, what)
    device = open_device(spec, random_state=seed)
    if board is not None:
        check_same(f"--device {spec}", "board", device.board.name, board)
    space = device.space if per_axis is None else device.space.thinned(per_axis)
    steps = {role: partial(_steps, task, device, workloads[role]) for role, task in tasks.items()}
    return DeviceSource(spec, device, Candidates(space), workloads, steps)


def _steps(
    task: TaskOptions, device: Device, job: Workload, sizes: Sequence[int]
) -> Mapping[int, Step]:
    return task.steps(device, [job.with_batch_size(size) for size in sizes])


def _of_table_device(roles: Mapping[str, str], spec: str) -> dict[str, str]:
    if len(roles) > 1:
        raise click.UsageError(
            "a table device replays one workload; give each role its table: "
            + " ".join(f"--{role} FILE.csv" for role in roles)
        )
    return dict.fromkeys(roles, spec.removeprefix("table:"))


def _open_tables(paths: Mapping[str, str], board: str | None, per_axis: int | None) -> TableSource:
    tables: dict[str, MeasurementTable] = {}
    for role, path in paths.items():
        tables[role], found = read_table(role, path, board)
        board = found.name
    assert board is not None
    return TableSource.of(tables, board, per_axis)


def read_table(role: str, path: str, board: str | None) -> tuple[MeasurementTable, Board]:
    """The table of a role, a CSV or a log: of training without batch sizes, else with."""
    measured = read_measured(path, board, None, "train" if role == "train" else "infer", None)
    if role == "train":
        if measured.table.batch_size is not None:
            raise InvalidInput(f"{path} has several batch sizes: it is of inference, not training")
        return measured.table, measured.board
    table = measured.table
    if table.batch_size is None:
        if measured.batch_size is None:
            raise InvalidInput(f"{path} has no column batch_size: it is of training")
        table = replace(table, batch_size=np.full(len(table), measured.batch_size, dtype=np.int64))
    return table, measured.board


def read_counts(texts: Sequence[str]) -> dict[str, Signature]:
    """What roles are estimated to need: each text is ``ROLE=MODEL`` or ``ROLE=MODEL@INPUT``."""
    found = {}
    for text in texts:
        from powerctl.pagoda.counted import CountedModel  # which loads torch: not for none

        role, _, rest = text.partition("=")
        model, _, input_text = rest.partition("@")
        if role not in ROLES or not model:
            raise InvalidInput(
                f"cannot read {text!r}; write train=resnet18 or infer=my_pkg.mod:make@3,224,224"
            )
        found[role] = CountedModel.of(model, input_text or None, kind_of(role)).signature
    return found


class SearchKeeper:
    """Tells of each mode of a search, and keeps what was measured in a folder.

    Parameters
    ----------
    out : str or None
        The folder, written after each mode; None keeps nothing.
    known : Facts
        Measured before; written too, so that the folder serves the next problem.
    """

    def __init__(self, out: str | None, known: Facts) -> None:
        self.out = out
        self.known = known
        self._told = 0

    def tell(self, search: Search, shown: Progress) -> None:
        """A line on the search after one more mode, which is kept."""
        new, self._told = search.order[self._told :], len(search.order)
        most = min(search.cap, len(search.candidates))
        seen = ", ".join(
            f"{search.problem.jobs[job]} {spoken(search.time_s[mode, job], 's')} "
            f"{spoken(search.power_w[mode, job], 'W')}"
            for mode, job in new
        )
        shown.say(
            f"mode {len(search.profiled)} of {most}  {search.candidates.mode(new[-1][0])}  "
            f"{seen}; {best_so_far(search)}"
        )
        shown.update(len(search.profiled), total=most)
        self.save(search)

    def save(self, search: Search) -> None:
        """Write a table of each role to the folder, if there is one."""
        if self.out is None:
            return
        facts = self.known | facts_of(search.solution("").measured)
        try:
            Path(self.out).mkdir(exist_ok=True)
            for role, table in tables_of(facts).items():
                table.write(Path(self.out) / f"{role}.csv")
        except OSError as error:
            raise InvalidInput(f"--out {self.out}: cannot be written: {error.strerror}") from None


def best_so_far(search: Search) -> str:
    """The best answer among what is measured so far, in words."""
    found = search.solution("")
    if found.mode is None:
        return "nothing feasible yet"
    return f"best so far {found.value:.4g} in {found.mode}"


def read_known(paths: tuple[str, ...], board: str) -> Facts:
    """What was measured before: folders that ``--out`` wrote, or ``ROLE=FILE``."""
    facts: Facts = {}
    for text in paths:
        role, is_file, path = text.partition("=")
        files = {role: path} if is_file else _folder(text)
        for role, path in files.items():
            if role not in ROLES:
                raise InvalidInput(f"--known {text}: write ROLE=FILE, ROLE of {', '.join(ROLES)}")
            facts |= facts_of_tables({role: read_table(role, path, board)[0]})
    return facts


def _folder(path: str) -> dict[str, str]:
    files = {role: Path(path) / f"{role}.csv" for role in ROLES}
    found = {role: str(file) for role, file in files.items() if file.is_file()}
    if not found:
        names = ", ".join(file.name for file in files.values())
        raise InvalidInput(f"--known {path}: no folder with any of {names}; or write ROLE=FILE")
    return found


def print_search(search: Search) -> None:
    """Print a row for each profiled mode, with its best choice."""
    found = outcomes(search, search.profiled)
    if not found:
        return
    numbers = {mode: number for number, mode in enumerate(search.profiled, start=1)}
    jobs = [search.problem.jobs[job] for job in search.problem.choices[found[0].choice]]
    header = ["", "mode"]
    for job in jobs:
        header += [f"{job.role} batch", "(ms)"] if job.batch_size else [f"{job.role} (ms)"]
        header += ["(W)"]
    header += [search.problem.goal, "bounds"]
    console.print_table(header, [_row(search, numbers[o.mode], o) for o in found])


def _row(search: Search, number: int, outcome: Outcome) -> list[object]:
    row: list[object] = [number, str(search.candidates.mode(outcome.mode))]
    for index in search.problem.choices[outcome.choice]:
        size = search.problem.jobs[index].batch_size
        row += [size] if size else []
        row += [1e3 * float(search.time_s[outcome.mode, index])]
        row += [float(search.power_w[outcome.mode, index])]
    return [*row, outcome.value, "kept" if outcome.feasible else "; ".join(outcome.broken)]


def print_answer(problem: Problem, solution: Solution) -> None:
    """Print the mode, and its figures beside the limits."""
    sizes = "".join(f", {role} batch {size}" for role, size in solution.batch_sizes.items())
    click.echo(f"answer: {solution.mode}{sizes}: {solution.value:.4g} ({problem.goal})")
    bounds = problem.limits
    rows = [
        (
            figure_name(figure),
            figure_text(figure, value),
            figure_text(figure, bounds[figure]) if figure in bounds else "",
        )
        for figure, value in solution.figures.items()
    ]
    console.print_table(("figure", "value", "limit"), rows)
    if solution.predicted:
        click.echo("predicted, not measured")


def miss_of(search: Search) -> str:
    """Why no measured mode keeps the bounds, and which came nearest, in words."""
    if not search.problem.choices:
        return "no batch fills within the latency; ask for smaller ones, or for more latency"
    nearest = nearest_miss(search)
    if nearest is None:
        return "nothing was measured; allow more modes with --cap"
    sizes = search.problem.chosen_sizes(nearest.choice)
    chosen = "".join(f", {role} batch {size}" for role, size in sizes.items())
    return (
        f"nothing that was measured keeps the bounds of {search.problem.describe()}; the nearest, "
        f"{100 * nearest.excess:.0f} % beyond: {search.candidates.mode(nearest.mode)}{chosen}: "
        f"{'; '.join(nearest.broken)}; ask for less, or for more modes with --cap"
    )


def as_json(search: Search, solution: Solution) -> dict[str, Any]:
    """A search and its solution as plain values, for scripts."""
    return {
        "problem": search.problem.describe(),
        "goal": search.problem.goal,
        "solved": solution.solved,
        "mode": None if solution.mode is None else str(solution.mode),
        "batch_sizes": dict(solution.batch_sizes),
        "value": solution.value if solution.solved else None,
        "figures": dict(solution.figures),
        "predicted": solution.predicted,
        "reason": solution.reason,
        "modes_profiled": solution.modes_profiled,
        "measured": [
            {
                "mode": str(one.mode),
                "role": one.job.role,
                "batch_size": one.job.batch_size,
                "time_s": one.time_s,
                "power_w": one.power_w,
            }
            for one in solution.measured
        ],
        "outcomes": [_outcome_json(search, o) for o in outcomes(search, search.profiled)],
    }


def _outcome_json(search: Search, outcome: Outcome) -> Mapping[str, Any]:
    return {
        "mode": str(search.candidates.mode(outcome.mode)),
        "batch_sizes": search.problem.chosen_sizes(outcome.choice),
        "feasible": outcome.feasible,
        "value": outcome.value,
        "broken": outcome.broken,
        "figures": dict(outcome.figures),
    }
