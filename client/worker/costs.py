"""What predicts the costs of a client's minibatches where nothing is known but signatures.

`wattfed.client.worker.cost_models` knows more, from a state directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from powerctl.boards import Board
from powerctl.powertrain.correction import CorrectedPredictor, SignaturePredictor
from powerctl.workload import Workload
from wattfed.client.worker.execution import SegmentResult

COUNTED, CALIBRATED, FITTED, MEASURED = "counted", "calibrated", "fitted", "measured"
ASSUMED = "assumed"
"""What costs can be from; the last where a task of one's own cannot be counted."""


class SignatureCosts:
    """What is known without a state directory: the signatures of workloads, and nothing is kept.

    Attributes
    ----------
    folder : Path or None
        The state directory, if there is one.
    """

    folder: Path | None = None

    def predictor(self, board: Board, workload: Workload) -> CorrectedPredictor:
        """A fresh predictor of a workload's minibatches."""
        return SignaturePredictor(board, workload)

    def record(self, board: Board, workload: Workload, segments: Sequence[SegmentResult]) -> None:
        """Take in what a round has measured."""


NOTHING_MEASURED = SignatureCosts()


def counted_in(folder: Path) -> Path:
    """The folder of a state directory in which counted workloads are kept."""
    return folder / COUNTED


def costs_file(folder: Path, workload: str) -> Path | None:
    """The file that was put into a state directory for a workload; None if there is none."""
    name = Path(workload).name  # one of a file may be called by its path
    for path in (folder / "predictors" / f"{name}.json", folder / "tables" / f"{name}.csv"):
        if path.is_file():
            return path
    return None
