"""Every table predicted and solved from the tables of other networks, with all constants anew.

    python -m benchmarks.leave_one_out --tables DIR --json OUT

A table is named BOARD_KIND_WORKLOAD.csv: orin_agx_train_lstm.csv. For each, references are built of
the tables of other networks, and the board's power constants are fitted to those of them that are
of its board; a board of which no other is there gets a measured board's, scaled. What the model
fixes for all (the widths of priors, kernels' lengths, the solver's own) is not chosen by a table.
Coverage is the share inside 90 % intervals; solving is done with these priors, and without any.
--quick takes fewer runs, numbers of modes and configurations. --resume goes on with a run that was
stopped, of the same options: what its --json file has is not done again.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import resources
from itertools import groupby, product
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.configurations import (
    PUBLISHED_MODES,
    Bounds,
    load_replay,
    read_screened,
)
from benchmarks.counted_constants import fitted_efficiency
from benchmarks.predict import evaluate, prior_hours, sample_rows
from benchmarks.solve import Judge, evaluate_both
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.calibration import errors_pct, fit_hardware, fit_signature
from powerctl.cost_model import Hardware, Signature
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.estimate import estimate_signature
from powerctl.pagoda.models import model_names
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.reference import Reference
from powerctl.powertrain.reference_fit import build_reference
from powerctl.progress import Progress

_NAME = re.compile(r"(?P<board>\w+)_(?P<kind>train|infer)_(?P<workload>\w+)")
_SIZE = 16  # samples of a minibatch where a table does not say
_WHAT = ("train", "infer", "solve-train", "solve-concurrent", "counts")
# Which peak of a board its power constants grow with, if it was never measured; all others are
# those of the measured board.
_GROWS_WITH = {
    "gpu_idle_w": ("flop_per_gpu_cycle", "max_gpu_hz"),
    "gpu_busy_w": ("flop_per_gpu_cycle", "max_gpu_hz"),
    "mem_w": ("bytes_per_mem_cycle", "max_mem_hz"),
    "static_w": ("flop_per_gpu_cycle",),
    "cluster_w": ("max_cpu_hz",),
    "core_online_w": ("max_cpu_hz",),
    "core_busy_w": ("max_cpu_hz",),
}
_PUBLIC = {f.name for f in fields(Hardware) if f.name.startswith(("max_", "cpu_speed"))} | {
    "flop_per_gpu_cycle",
    "bytes_per_mem_cycle",
}


@dataclass(frozen=True, eq=False)
class Measured:
    """A table with what its name says of it."""

    path: Path
    board: Board
    kind: str
    workload: str

    @classmethod
    def of(cls, path: Path) -> Measured:
        """Of a file; raises `InvalidInput` if its name does not say what it is."""
        found = _NAME.fullmatch(path.stem)
        if found is None:
            raise InvalidInput(f"{path}: name tables BOARD_train_WORKLOAD.csv, or _infer_")
        board = load_board(found["board"].replace("_", "-"))
        return cls(path, board, found["kind"], found["workload"])

    @cached_property
    def table(self) -> MeasurementTable:
        """Its rows; all modes are of its board."""
        return MeasurementTable.read(self.path, self.board.space)

    @cached_property
    def signature(self) -> Signature:
        """What explains its times best."""
        return fit_signature(self.board.hardware, self.table, _SIZE)


@dataclass(frozen=True, eq=False)
class Fold:
    """What may be known where some networks are left out.

    Attributes
    ----------
    boards : mapping of str to Board
        By name, with constants that no left-out table has a part in; files of this run.
    known : tuple of Measured
        Tables of other networks.
    """

    boards: Mapping[str, Board]
    known: tuple[Measured, ...]

    @classmethod
    def without(cls, networks: Set[str], tables: Sequence[Measured], folder: Path) -> Fold:
        """Leave out all tables of some networks."""
        known = tuple(each for each in tables if each.workload not in networks)
        if not known:
            raise InvalidInput("there is no table of another network; put more into --tables")
        refitted = {
            name: fit_hardware(*_of_board(name, known), _SIZE)
            for name in dict.fromkeys(each.board.name for each in known)
        }
        boards = {}
        for name in dict.fromkeys(each.board.name for each in (*known, *tables)):
            hardware = refitted.get(name) or _scaled(
                load_board(name), next(iter(refitted.values()))
            )
            path = folder / "-".join(sorted(networks)) / f"{name}.toml"
            boards[name] = _with_constants(load_board(name), hardware, path)
        return cls(boards, known)

    def board(self, measured: Measured) -> Board:
        """That of a table."""
        return self.boards[measured.board.name]

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Built of the known tables."""
        return tuple(
            build_reference(each.table, self.board(each), name=each.path.stem, kind=each.kind)
            for each in self.known
        )


def _of_board(
    name: str, known: Sequence[Measured]
) -> tuple[Hardware, list[MeasurementTable], list[Signature]]:
    mine = [each for each in known if each.board.name == name]
    return mine[0].board.hardware, [m.table for m in mine], [m.signature for m in mine]


def _scaled(board: Board, measured: Hardware) -> Hardware:
    """Constants of a board that was never measured, from those of one that was."""

    def share(names: Sequence[str]) -> float:
        return float(
            np.prod([getattr(board.hardware, name) / getattr(measured, name) for name in names])
        )

    grown = {name: getattr(measured, name) * share(peaks) for name, peaks in _GROWS_WITH.items()}
    own = {name: getattr(board.hardware, name) for name in _PUBLIC}
    return replace(measured, **grown, **own)


def _with_constants(board: Board, hardware: Hardware, path: Path) -> Board:
    """The board of a file that is that of the catalogue but for the constants."""
    text = (resources.files("powerctl") / "boards" / f"{board.name}.toml").read_text()
    for field in fields(Hardware):
        line = f"{field.name} = {getattr(hardware, field.name):.6g}"
        text, n = re.subn(rf"^{field.name} = .*$", line, text, flags=re.M)
        if not n:
            text = text.replace("[hardware]\n", f"[hardware]\n{line}\n", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return load_board(str(path))


@dataclass(frozen=True)
class Effort:
    """How much is done: runs of a prediction, modes measured, configurations of a solver."""

    train_modes: tuple[int, ...] = (10, 20, 50)
    infer_modes: tuple[int, ...] = (10, 50)
    runs: int = 5
    configurations: int = 150


QUICK = Effort(train_modes=(10, 50), infer_modes=(10,), runs=2, configurations=30)


def predicted(target: Measured, fold: Fold, effort: Effort, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each number of designed modes."""
    board = fold.board(target)

    def make(random_state: int) -> GaussianPredictor:
        return GaussianPredictor(board.name, kind=target.kind, references=fold.references)

    counts = effort.train_modes if target.kind == "train" else effort.infer_modes
    nothing = np.array([])
    for n in counts:
        samples = [sample_rows(target.table, n, seed + i, make) for i in range(effort.runs)]
        with Progress("runs", effort.runs) as shown:
            found = evaluate(make, target.table, board, samples, seed, nothing, 0.0, shown)
        yield {
            "what": target.kind,
            "modes": n,
            "time_coverage": found.pop("coverage_time"),
            "power_coverage": found.pop("coverage_power"),
            "prior": True,
            **found,
        }


def solved(
    train: Measured, infer: Measured | None, fold: Fold, effort: Effort, seed: int
) -> Iterator[dict[str, Any]]:
    """A row with the priors, and one without any."""
    kind, cap = ("train", 10) if infer is None else ("concurrent", 15)
    paths = {"train": str(train.path), "infer": None if infer is None else str(infer.path)}
    board = fold.board(train)
    replay, clean = (
        load_replay(kind, paths, board, "published", read)
        for read in (MeasurementTable.read, read_screened)
    )
    bounds = Bounds.parse(kind, {}, "rate", False)
    problems = bounds.problems(replay.batch_sizes("infer"), effort.configurations, seed)
    for references in (fold.references, ()):
        judge = Judge("default", replay, references, cap, seed)
        yield {
            "what": f"solve-{kind}",
            "modes": cap,
            "prior": bool(references),
            **evaluate_both(judge, clean, bounds, problems, 1),
        }


def counted(target: Measured, fold: Fold) -> Iterator[dict[str, Any]]:
    """Errors from counts alone, with constants fitted to the other networks."""
    known = [m for m in fold.known if m.workload in model_names()]
    if target.workload not in model_names() or not known:
        return
    models = {
        (m.workload, m.kind): CountedModel.of(m.workload, None, m.kind) for m in (target, *known)
    }
    cases = [(models[m.workload, m.kind], fold.board(m).hardware, m.table) for m in known]
    efficiency = fitted_efficiency(target.kind, cases)
    model = models[target.workload, target.kind]
    signature = estimate_signature(model.counts, target.kind, model.tokens, efficiency)
    time, power = errors_pct(fold.board(target).hardware, signature, target.table, _SIZE)
    yield {"what": "counts", "modes": 0, "prior": True, "time_mape": time, "power_mape": power}


@dataclass(frozen=True)
class Case:
    """Some rows: what is done with a table, or with a table of training beside one of inference."""

    what: str
    target: Measured
    beside: Measured | None = None

    @property
    def networks(self) -> frozenset[str]:
        """Those that are left out."""
        return frozenset(each.workload for each in (self.target, self.beside) if each)

    @property
    def about(self) -> dict[str, Any]:
        """What its rows say of it."""
        return {
            "what": self.what,
            "board": self.target.board.name,
            "workload": self.target.workload,
            "beside": self.beside and self.beside.workload,
        }

    def rows(self, fold: Fold, effort: Effort, seed: int) -> list[dict[str, Any]]:
        """Its rows, with all fields that rows have; what they do not know is None."""
        if self.what.startswith("solve"):
            found = solved(self.target, self.beside, fold, effort, seed)
        elif self.what == "counts":
            found = counted(self.target, fold)
        else:
            found = predicted(self.target, fold, effort, seed)
        empty = dict.fromkeys(_FIGURES)
        hours = prior_hours(each.table for each in fold.known)
        return [
            {**empty, **self.about, **row, "prior_hours": hours if row["prior"] else 0.0}
            for row in found
        ]


def cases_of(tables: Sequence[Measured], what: Sequence[str]) -> Iterator[Case]:
    """All that there is to do; cases that leave out the same networks stand together."""
    for target in sorted(tables, key=lambda table: table.workload):
        if target.kind in what:
            yield Case(target.kind, target)
        if "solve-train" in what and target.kind == "train" and _has_grid(target):
            yield Case("solve-train", target)
        if "counts" in what:
            yield Case("counts", target)
    if "solve-concurrent" not in what:
        return
    for train, infer in product(tables, tables):
        is_pair = (train.kind, infer.kind) == ("train", "infer") and train.board == infer.board
        if is_pair and train.workload != infer.workload and all(map(_has_grid, (train, infer))):
            yield Case("solve-concurrent", train, infer)


def rows_of(
    cases: Iterable[Case],
    tables: Sequence[Measured],
    done: Sequence[dict[str, Any]],
    effort: Effort,
    seed: int,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each case, as they come; those that are done are not done again."""
    with tempfile.TemporaryDirectory() as folder:
        for networks, alike in groupby(cases, lambda case: case.networks):
            fold = None
            for case in alike:
                about = case.about
                if known := [row for row in done if row.items() >= about.items()]:
                    yield known
                    continue
                click.echo(f"{', '.join(map(str, about.values()))}, left out:", err=True)
                fold = fold or Fold.without(networks, tables, Path(folder))
                yield case.rows(fold, effort, seed)


def _has_grid(measured: Measured) -> bool:
    """Whether Fulcrum's grid is of the table's board."""
    axes = zip(PUBLISHED_MODES.values(), measured.board.space.axes, strict=True)
    return all(set(wanted) <= set(axis) for wanted, axis in axes)


_FIGURES = (
    *("time_mape", "time_mape_screened", "power_mape", "power_mape_screened"),
    *("time_coverage", "power_coverage"),
    *("solved_pct", "loss_mean_pct", "solved_pct_screened", "loss_mean_pct_screened"),
)
_COLUMNS = {
    "what": "what",
    "board": "board",
    "workload": "workload",
    "beside": "beside",
    "modes": "modes",
    "prior": "prior",
    "time_mape": "time %",
    "time_mape_screened": "screened",
    "power_mape": "power %",
    "power_mape_screened": "screened",
    "time_coverage": "time in 90 %",
    "power_coverage": "power in 90 %",
    "solved_pct": "solved %",
    "loss_mean_pct": "mean loss %",
    "solved_pct_screened": "screened: solved %",
    "loss_mean_pct_screened": "mean loss %",
}


@click.command(help=__doc__)
@click.option(
    "--tables", "folder", default="../shared/data", show_default=True, help="Their folder."
)
@click.option("--what", default=",".join(_WHAT), show_default=True, help="Which rows.")
@click.option("--quick", is_flag=True, help="Fewer runs, numbers of modes, and configurations.")
@click.option("--configurations", type=click.IntRange(min=1), help="Drawn of those of a solver.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
@click.option("--resume", is_flag=True, help="Keep the rows that the --json file has.")
def main(
    folder: str,
    what: str,
    quick: bool,
    configurations: int | None,
    seed: int,
    json_path: str | None,
    resume: bool,
) -> None:
    """Run the benchmark."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = [name.strip() for name in what.split(",")]
    if unknown := set(wanted) - set(_WHAT):
        raise InvalidInput(f"--what {sorted(unknown)[0]}: choose of {', '.join(_WHAT)}")
    paths = [path for path in sorted(Path(folder).glob("*.csv")) if _NAME.fullmatch(path.stem)]
    if len(paths) < 2:
        raise InvalidInput(f"--tables {folder}: two tables BOARD_train_WORKLOAD.csv at least")
    tables = [Measured.of(path) for path in paths]
    effort = QUICK if quick else Effort()
    if configurations is not None:
        effort = replace(effort, configurations=configurations)
    is_begun = resume and json_path is not None and Path(json_path).exists()
    done = json.loads(Path(json_path or "").read_text()) if is_begun else []
    rows: list[dict[str, Any]] = []
    for found in rows_of(cases_of(tables, wanted), tables, done, effort, seed):
        rows += found
        if json_path:  # as they come: all of it takes hours
            Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    shown = [["" if row[name] is None else row[name] for name in _COLUMNS] for row in rows]
    console.print_table(list(_COLUMNS.values()), shown)
    click.echo("medians over the runs; unsolved configurations count as a loss of 100 %")


if __name__ == "__main__":
    console.run(main)
