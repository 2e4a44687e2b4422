"""What the agent knows of costs: measured tables and predictors of its state directory."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from powerctl.boards import Board
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.correction import CorrectedPredictor, FittedPredictor, SignaturePredictor
from powerctl.powertrain.gaussian import GaussianPredictor, load_predictor
from powerctl.workload import Workload


class CostModels:
    """Predictors of workloads, the best that there is for each.

    ``predictors/WORKLOAD.json`` (of ``powerctl fit``), else ``tables/WORKLOAD.csv`` (as
    ``powerctl profile`` measures), else the workload's signature.

    Parameters
    ----------
    folder : Path
        The state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fitted = cache(self._fit)

    def predictor(self, board: Board, workload: Workload) -> CorrectedPredictor:
        """A fresh predictor of a workload's minibatches.

        Raises
        ------
        InvalidInput
            If a file is none, or of another board or kind of work.
        """
        path = self.source(workload.name)
        if path is None:
            return SignaturePredictor(board, workload)
        fitted = self._fitted(path, board.name, board.l4t, workload.kind, workload.batch_size)
        return FittedPredictor(fitted, workload.batch_size)

    def source(self, workload: str) -> Path | None:
        """The file that is known of a workload; None if there is none."""
        name = Path(workload).name  # one of a file may be called by its path
        for path in (
            self._folder / "predictors" / f"{name}.json",
            self._folder / "tables" / f"{name}.csv",
        ):
            if path.is_file():
                return path
        return None

    def _fit(
        self, path: Path, board: str, l4t: str, kind: str, batch_size: int
    ) -> GaussianPredictor:
        if path.suffix == ".csv":
            empty = GaussianPredictor(board, l4t=l4t, kind=kind, batch_size=batch_size)
            return empty.fit(MeasurementTable.read(path))
        fitted = load_predictor(path)
        if (fitted.board, fitted.kind) != (board, kind):
            raise InvalidInput(
                f"{path} predicts {fitted.kind} on {fitted.board}, not {kind} on {board}; "
                "fit another, or take the file away"
            )
        return fitted
