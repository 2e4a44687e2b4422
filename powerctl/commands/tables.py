"""Measurements as commands take them: a CSV, or a log of `powerctl profile`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from powerctl.board_files import UNKNOWN_RELEASE
from powerctl.boards import Board, load_board, releases
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import IntArray
from powerctl.profiler.profile_log import LogHeader, ProfileLog


@dataclass(frozen=True)
class Measured:
    """A table of measurements, with the board and the kind of workload that it is of.

    Attributes
    ----------
    table : MeasurementTable
        It names batch sizes only if there are several.
    board : Board
        The board; all modes are of it.
    kind : str
        ``"train"`` or ``"infer"``.
    batch_size : int or None
        The one asked for, or the only one there is; None if there are several, or nothing says it.
    """

    table: MeasurementTable
    board: Board
    kind: str
    batch_size: int | None

    @property
    def usual_batch_size(self) -> int:
        """The batch size to predict unless another is asked for: 16, or the largest measured."""
        if self.batch_size is not None:
            return self.batch_size
        sizes = [] if self.table.batch_size is None else self.table.batch_size.tolist()
        return 16 if 16 in sizes or not sizes else max(sizes)

    def of_batch_size(self) -> MeasurementTable:
        """The rows of the batch size asked for, or of the only one there is."""
        if self.table.batch_size is None:
            return self.table
        if self.batch_size is None:
            raise InvalidInput(
                f"{self.table.source} has the batch sizes {_listed(self.table.batch_size)}; "
                "choose one with --batch"
            )
        rows = self.table.take(np.flatnonzero(self.table.batch_size == self.batch_size))
        return replace(rows, batch_size=None)


def read_measured(
    path: str, board: str | None, l4t: str | None, kind: str | None, batch: int | None
) -> Measured:
    """Read a CSV or a ``.jsonl`` log; what is None is what the log says, or usual."""
    table, header = _read(path)
    if header is not None:
        check_same(path, "board", header.board, board and load_board(board).name)
        check_same(path, "kind", header.kind, kind)
        board, l4t, kind = header.board, l4t or header.l4t, header.kind
    measured_on = _board_of(table, board or "orin-agx", l4t)
    table.check_space(measured_on.space)
    if table.batch_size is not None:
        sizes = np.unique(table.batch_size).tolist()
        batch = sizes[0] if batch is None and len(sizes) == 1 else batch
        if batch is not None and batch not in sizes:
            raise InvalidInput(
                f"{path} has the batch sizes {_listed(table.batch_size)}, not {batch}"
            )
        table = table if len(sizes) > 1 else replace(table, batch_size=None)
    device = "" if header is None else f" ({header.device})"  # a twin's figures are no Jetson's
    table = replace(table, source=Path(path).name + device)
    return Measured(table, measured_on, kind or "train", batch)


def _board_of(table: MeasurementTable, board: str, l4t: str | None) -> Board:
    """The board of a table; where nothing told its release, with the axes that have its modes."""
    known = load_board(board, l4t)
    if l4t == UNKNOWN_RELEASE and known.is_catalogued:
        for release in map(partial(load_board, board), releases(board)):
            if (release.space.indices(table.modes) >= 0).all():
                return release
    return known


def _listed(sizes: IntArray) -> str:
    return ", ".join(map(str, np.unique(sizes).tolist()))


def check_same(path: str, what: str, here: str, asked: str | None) -> None:
    """Raise `InvalidInput` if something else was asked for than what a file says of itself."""
    if asked is not None and asked != here:
        raise InvalidInput(f"{path} is of {what} {here}, not {asked}; leave --{what} out")


def _read(path: str) -> tuple[MeasurementTable, LogHeader | None]:
    if not path.endswith(".jsonl"):
        return MeasurementTable.read(path), None
    log = ProfileLog.read(path)
    if not log.entries:
        raise InvalidInput(f"{path}: nothing is measured yet; go on with powerctl profile")
    return log.table(), log.header
