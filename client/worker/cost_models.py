"""What a state directory knows of costs: fitted predictors, tables, what a device has measured."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from powerctl.boards import Board, load_board
from powerctl.errors import InvalidInput, PowerctlError
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.correction import CorrectedPredictor, FittedPredictor
from powerctl.workload import Workload
from wattfed.client.worker.costs import (
    ASSUMED,
    CALIBRATED,
    COUNTED,
    FITTED,
    MEASURED,
    SignatureCosts,
    costs_file,
)
from wattfed.client.worker.execution import SegmentResult
from wattfed.client.worker.measured_task import (
    MeasuredPredictor,
    MeasuredRow,
    MeasuredTask,
    TaskTable,
)

if TYPE_CHECKING:
    from powerctl.powertrain.gaussian import GaussianPredictor

_LOG = logging.getLogger("wattfed.client")
# of a task: its name, its code's hash, and its batch size, where a loader has none of its own
_OWN = re.compile(r"@[0-9a-f]{8,}(-b\d+)?$")
_BOARD_ITSELF = "jetson"


@dataclass(frozen=True)
class KnownCosts:
    """What is known of a workload's costs.

    Attributes
    ----------
    workload : str
        Its name.
    origin : str
        What it is from: `COUNTED`, `ASSUMED`, `CALIBRATED`, `FITTED` or `MEASURED`.
    table : TaskTable
        What this device has measured.
    time_std, power_std : float
        Relative standard deviations of what is predicted, in a middling mode.
    """

    workload: str
    origin: str
    table: TaskTable
    time_std: float
    power_std: float


class CostModels(SignatureCosts):
    """Predictors of workloads, the best that there is for each, from a state directory.

    ``predictors/WORKLOAD.json`` (of ``powerctl fit``), else ``tables/WORKLOAD.csv`` (as
    ``powerctl profile`` measures), else, of a task of the user's own, what this device itself has
    measured (`MeasuredTask`), else the workload's signature.

    Parameters
    ----------
    folder : Path
        The state directory.
    device : str
        Specification of the device, so that a twin's figures are never taken for a Jetson's.
    """

    folder: Path

    def __init__(self, folder: Path, device: str = _BOARD_ITSELF) -> None:
        self.folder = folder
        self._kind = device.partition(":")[0]
        self._measured: dict[tuple[str, Workload], MeasuredTask] = {}
        self._warned: set[str] = set()

    def predictor(self, board: Board, workload: Workload) -> CorrectedPredictor:
        """A fresh predictor of a workload's minibatches.

        Raises
        ------
        InvalidInput
            If a file that was put there for a named workload is none, or of another board or kind
            of work. Of a task of the user's own that is logged, and the signature is taken.
        """
        found = None
        try:
            found = self._from_files(board, workload)
        except PowerctlError as error:
            if not is_own(workload):
                raise
            self._warn(str(error))
        return found or super().predictor(board, workload)

    def _from_files(self, board: Board, workload: Workload) -> CorrectedPredictor | None:
        path = costs_file(self.folder, workload.name)
        if path is not None:
            of_what = _OfWhat(board.name, board.l4t, workload.kind, workload.batch_size)
            fitted = _fitted(path, _digest(path, *_stamp(path)), of_what)
            return FittedPredictor(fitted, workload.batch_size)
        return self.measured(board, workload).predictor() if is_own(workload) else None

    def record(self, board: Board, workload: Workload, segments: Sequence[SegmentResult]) -> None:
        """Keep what a round has measured of a task of the user's own."""
        if not is_own(workload):
            return
        rows = [
            MeasuredRow(
                *(segment.mode.values, segment.minibatch_s, segment.settled_power_w),
                *(segment.minibatches, "round", time.time()),
            )
            for segment in segments
            if segment.minibatch_s > 0 and segment.settled_power_w > 0
        ]
        try:
            if rows:
                self.measured(board, workload).record(rows)
        except (PowerctlError, OSError) as error:  # what a round has learned is lost, not the round
            self._warn(f"what the round measured is not kept: {error}")

    def known(self, board: Board, workload: Workload) -> KnownCosts:
        """What is known of a workload's costs, and from what."""
        predictor = self.predictor(board, workload)
        time_std, power_std = _sureness(type(predictor), predictor.origin, board)
        table = TaskTable(board.name, workload.name)
        origin = ASSUMED if is_own(workload) else CALIBRATED
        if workload.source.startswith(COUNTED):
            origin = COUNTED
        if isinstance(predictor, MeasuredPredictor):
            table, origin = self.measured(board, workload).read(), MEASURED
        elif isinstance(predictor, FittedPredictor):
            origin = FITTED
        return KnownCosts(workload.name, origin, table, time_std, power_std)

    def measured(self, board: Board, workload: Workload) -> MeasuredTask:
        """What this device has measured of a workload, whether or not there is any of it yet."""
        key = (board.name, workload)
        if key not in self._measured:
            name = board.name if self._kind == _BOARD_ITSELF else f"{self._kind}-{board.name}"
            self._measured[key] = MeasuredTask(self.folder / MEASURED / name, board, workload)
        return self._measured[key]

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _LOG.warning("%s", message)


def is_own(workload: Workload) -> bool:
    """Whether a workload is a task's own, named by its code, and not one of a catalogue."""
    return _OWN.search(workload.name) is not None


@lru_cache(maxsize=64)
def _sureness(
    kind: Callable[..., CorrectedPredictor], origin: tuple[Any, ...], board: Board
) -> tuple[float, float]:
    """Relative standard deviations of time and power, in a middling mode of a board."""
    found = kind(*origin).predict(board.space.arrays)
    return float(np.median(found.time_std)), float(np.median(found.power_std))


class _OfWhat(NamedTuple):
    """What a predictor is wanted for."""

    board: str
    l4t: str
    kind: str
    batch_size: int


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes whenever a file does, so that it need not be read to know that it has not."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@lru_cache(maxsize=64)
def _digest(path: Path, *stamp: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=64)
def _fitted(path: Path, digest: str, of_what: _OfWhat) -> GaussianPredictor:
    """The predictor of a file of some content; another content is another one."""
    from powerctl.powertrain.gaussian import GaussianPredictor, load_predictor  # a second

    board, l4t, kind, batch_size = of_what
    if path.suffix == ".csv":
        table = MeasurementTable.read(path)
        if np.all(load_board(board, l4t).space.indices(table.modes) < 0):
            raise InvalidInput(
                f"{path}: of another board, in no mode of {board}; put one of {board} in its place"
            )
        empty = GaussianPredictor(board, l4t=l4t, kind=kind, batch_size=batch_size)
        return empty.fit(table)
    fitted = load_predictor(path)
    if (fitted.board, fitted.kind) != (board, kind):
        raise InvalidInput(
            f"{path} predicts {fitted.kind} on {fitted.board}, not {kind} on {board}; "
            "fit another, or take the file away"
        )
    return fitted
