"""Predictors of all modes from a few measured ones: ours by name, and those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.plugins import Kind, names_code
from powerctl.powertrain.prediction import Prediction


class Predictor(Protocol):
    """Learns time and power of a workload from measured modes, and predicts them in others.

    Its class or function is given the parameters `board` and `l4t` (as of `load_board`), `kind`
    (``"train"`` or ``"infer"``), `batch_size`, `references` and `random_state` that it has.
    """

    def fit(self, table: MeasurementTable) -> Any:
        """Learn from measurements alone, whatever was learned before."""

    def predict(self, modes: ModeArrays, batch_size: Any = None) -> Prediction:
        """What a minibatch costs in each mode, of a batch size or of one for each mode."""
        ...


PREDICTORS = Kind[Predictor](
    "predictor",
    "powerctl.predictors",
    {"gaussian": "powerctl.powertrain.gaussian:GaussianPredictor"},
    Predictor,
)


def is_predictor(text: str) -> bool:
    """Whether a text is not the file of a fitted predictor, but what is to be fitted."""
    return not Path(text).exists() and (names_code(text) or text in PREDICTORS.names())
