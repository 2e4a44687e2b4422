"""Where a command's costs come from: a workload's signature, measurements, or a predictor."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.commands.own_task import TaskOptions
from powerctl.commands.tables import check_same, read_measured
from powerctl.durable import write_output
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import AXES, ModeArrays, PowerMode
from powerctl.plugins import blamed
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.powertrain.prediction import PREDICTORS, Prediction, Predictor, is_predictor
from powerctl.quantities import time_unit
from powerctl.workload import Workload, load_workload

_USUAL_SIZE = 16
Predict = Callable[[Sequence[Measurement]], Prediction]


@dataclass(frozen=True)
class CostSource:
    """What a command line says of where costs come from; None where it does not say."""

    board: str | None
    l4t: str | None
    workload: str | None
    batch: int | None
    table: str | None
    predictor: str | None
    model: str | None
    input: str | None
    kind: str | None
    task: TaskOptions | None = None


@dataclass(frozen=True)
class Costs:
    """Time, power and energy of a minibatch in each of some modes, and where that is from.

    Attributes
    ----------
    board : Board
        The board.
    modes : ModeArrays
        All of the board, or those of a table.
    values : Prediction
        What each costs; without spread where it is measured.
    origin : str
        In words, from what.
    predict : callable
        What the modes cost after some measurements.
    batch_size : int or None
        If it is known.
    workload : Workload or None
        What runs, if it was named.
    learned_from : MeasurementTable or None
        What a predictor was fitted to, of this batch size.
    seen : tuple of Measurement
        What was measured since.
    task : TaskOptions or None
        What runs where something is measured.
    """

    board: Board
    modes: ModeArrays
    values: Prediction
    origin: str
    predict: Predict
    batch_size: int | None
    workload: Workload | None = None
    learned_from: MeasurementTable | None = None
    seen: tuple[Measurement, ...] = ()
    task: TaskOptions | None = None

    @property
    def caption(self) -> str:
        """A line for below a table: where the costs are from, and what ± means."""
        return self.origin + ("; ± is one standard deviation" if self.values.time_std.any() else "")

    def find(self, mode: PowerMode) -> int | None:
        """Where a mode stands; None if it is not among the modes."""
        same = [axis == value for axis, value in zip(self.modes, mode.values, strict=True)]
        rows = np.flatnonzero(np.logical_and.reduce(same))
        return int(rows[0]) if len(rows) else None

    def row(self, mode: PowerMode) -> int:
        """Where a mode stands; raises `ModeNotInSpace` if it is not among the modes."""
        row = self.find(mode)
        if row is None:
            raise ModeNotInSpace(f"there is nothing on {mode}: {self.origin}")
        return row

    def write(self, path: str) -> None:
        """Write every mode as CSV: the columns of a table, and the relative spreads."""
        values = self.values
        columns: dict[str, Sequence[object]] = {
            name: axis.tolist() for name, axis in zip(AXES, self.modes, strict=True)
        }
        if self.batch_size is not None:
            columns["batch_size"] = [self.batch_size] * len(values.time_s)
        for name, column in (
            ("time_ms", 1e3 * values.time_s),
            ("power_w", values.power_w),
            ("time_std", values.time_std),
            ("power_std", values.power_std),
        ):
            columns[name] = [f"{value:.5g}" for value in column]
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_output(path, text.getvalue())

    def with_seen(self, new: Measurement) -> Costs:
        """The costs after one more measurement: exact in its mode, predicted anew in the others."""
        seen = (*self.seen, new)
        values = Prediction(*(column.copy() for column in self.predict(seen)))
        for fact in seen:
            row = self.row(fact.mode)
            for column, value in zip(values, (fact.time_s, fact.power_w, 0, 0), strict=True):
                column[row] = value
        return replace(self, values=values, seen=seen)

    def entry(self, row: int) -> dict[str, Any]:
        """The costs of the mode in a row, by name, for JSON; spreads are relative."""
        values = self.values
        return {
            "mode": str(self.modes.mode(row)),
            "time_s": float(values.time_s[row]),
            "power_w": float(values.power_w[row]),
            "energy_j": float(values.energy_j[row]),
            "time_std": float(values.time_std[row]),
            "power_std": float(values.power_std[row]),
        }


def load_costs(asked: CostSource) -> Costs:
    """Work out the costs that a command line asks for, from the source that it names.

    A task is counted where nothing else is named.
    """
    return replace(_costs(asked), task=asked.task)


def _costs(asked: CostSource) -> Costs:
    if asked.table and asked.predictor and is_predictor(asked.predictor):
        return _of_table_by(asked, asked.predictor, asked.table)
    given = ("table", "predictor", "model")
    sources = [f"--{name}" for name in given if getattr(asked, name) is not None]
    if len(sources) > 1:
        raise InvalidInput(f"costs come from {' or '.join(sources)}, not from both")
    own = asked.task if not sources and asked.workload is None else None
    if asked.model is None and (asked.input or (asked.kind and own is None)):
        raise InvalidInput("--input and --kind say what --model is: give --model")
    if asked.predictor is not None:
        return _of_predictor(asked, asked.predictor)
    if asked.table is not None:
        return _of_table(asked, asked.table)
    if asked.model is not None:
        from powerctl.pagoda.counted import CountedModel

        counted = CountedModel.of(asked.model, asked.input, asked.kind or "infer")
        return _of_counts(asked, counted.workload(asked.batch or _USUAL_SIZE))
    if own is not None:
        return _of_counts(asked, own.workload(asked.kind or "train", asked.batch))
    return _of_signature(asked)


def _of_signature(asked: CostSource) -> Costs:
    board = load_board(asked.board or "orin-agx", asked.l4t)
    job = _job(asked.workload or "resnet18-train", asked.batch)
    modes = board.space.arrays

    def predict(seen: Sequence[Measurement]) -> Prediction:
        model = SignaturePredictor(board, job)
        for fact in seen:
            model.partial_fit(fact.mode, fact.time_s, fact.power_w)
        return model.predict(modes)

    origin = f"predicted by the cost model of {board.label} for {job.name}, batch {job.batch_size}"
    if modes.gpu_hz.max() > board.hardware.max_gpu_hz:
        origin += f", extrapolated above {board.hardware.max_gpu_hz / 1e6:.0f} MHz of the GPU"
    return Costs(board, modes, predict(()), origin, predict, job.batch_size, job)


def _of_counts(asked: CostSource, job: Workload) -> Costs:
    """Costs of what was never measured: from its counts, and what references know."""
    from powerctl.powertrain.gaussian import GaussianPredictor

    board = load_board(asked.board or "orin-agx", asked.l4t)
    size = job.batch_size
    predictor = GaussianPredictor(
        board.name, l4t=asked.l4t, kind=job.kind, batch_size=size, expected=job.counted_signature
    )
    modes = board.space.arrays

    def predict(seen: Sequence[Measurement]) -> Prediction:
        table = replace(MeasurementTable.of(seen, "measured"), batch_size=None)
        return predictor.fit(table).predict(modes)

    origin = f"estimated from the counts of {job.name} for {board.label}, batch {size}"
    return Costs(board, modes, predict(()), origin, predict, size, job)


def _of_table(asked: CostSource, path: str) -> Costs:
    measured = read_measured(path, asked.board, asked.l4t, None, asked.batch)
    table, size = measured.of_batch_size(), measured.batch_size
    zeros = np.zeros(len(table))
    values = Prediction(table.time_s, table.power_w, zeros, zeros)
    origin = f"measured, {table.source}" + (f", batch {size}" if size else "")
    job = None if asked.workload is None else _job(asked.workload, size)
    return Costs(measured.board, table.modes, values, origin, lambda seen: values, size, job)


def _of_predictor(asked: CostSource, path: str) -> Costs:
    from powerctl.powertrain.gaussian import load_predictor

    model = load_predictor(path)
    check_same(path, "board", model.board_.name, asked.board and load_board(asked.board).name)
    board = load_board(model.board_.name, asked.l4t) if asked.l4t else model.board_
    return _learned(asked, model, model.table_, board, model.batch_size)


def _of_table_by(asked: CostSource, name: str, path: str) -> Costs:
    """Costs of all modes of a board, as a predictor of this name learns them from a table."""
    measured = read_measured(path, asked.board, asked.l4t, asked.kind, asked.batch)
    board, size = measured.board, measured.usual_batch_size
    model = PREDICTORS.make(
        name, board=board.name, l4t=board.l4t, kind=measured.kind, batch_size=size, random_state=0
    )
    with blamed(name):
        model.fit(measured.table)
    return _learned(asked, model, measured.table, board, size)


def _learned(
    asked: CostSource, model: Predictor, table: MeasurementTable, board: Board, usual_size: int
) -> Costs:
    """What a fitted predictor says, and says anew after some measurements."""
    size = asked.batch or usual_size
    modes = board.space.arrays
    sizes = np.broadcast_to(
        usual_size if table.batch_size is None else table.batch_size, len(table)
    )
    named = replace(table, batch_size=sizes)

    def predict(seen: Sequence[Measurement]) -> Prediction:
        if seen:
            facts = (*(named[row] for row in range(len(table))), *seen)
            latest = {(fact.mode, fact.batch_size): fact for fact in facts}
            learned = MeasurementTable.of(latest.values(), table.source)
            if np.all(learned.batch_size == usual_size):
                learned = replace(learned, batch_size=None)  # as it was before
            model.fit(learned)
        return model.predict(modes, size)

    of_size = table.take(np.flatnonzero(sizes == size))
    origin = (
        f"predicted by {Path(str(asked.predictor)).name} for {board.label}, batch {size}, "
        f"from {len(table)} measurements in {table.source}"
    )
    job = None if asked.workload is None else _job(asked.workload, size)
    return Costs(board, modes, predict(()), origin, predict, size, job, of_size)


def _job(name: str, batch: int | None) -> Workload:
    job = load_workload(name)
    return job.with_batch_size(batch) if batch else job


def print_entries(entries: Sequence[dict[str, Any]], labels: Sequence[str] = ()) -> None:
    """Print modes as a table; without the columns of ± where all is measured."""
    unit, per_s = time_unit(entry["time_s"] for entry in entries)
    header = ["mode", f"time ({unit})", "± %", "power (W)", "± %", "energy (J)", "± %"]
    rows: list[list[object]] = []
    for e in entries:
        spreads = (e["time_std"], e["power_std"], math.hypot(e["time_std"], e["power_std"]))
        values = (per_s * e["time_s"], e["power_w"], e["energy_j"])
        pairs = ((v, round(100 * s, 1)) for v, s in zip(values, spreads, strict=True))
        rows.append([e["mode"], *chain(*pairs)])
    if not any(entry["time_std"] for entry in entries):
        header, rows = _without_spread(header), [_without_spread(row) for row in rows]
    if labels:
        header = ["", *header]
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    console.print_table(header, rows)


def _without_spread(line: list[Any]) -> list[Any]:
    return [line[0], *line[1::2]]
