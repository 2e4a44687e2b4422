"""Predictors of all modes from a few measured ones: what they return, ours by name, and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray, ModeArrays
from powerctl.plugins import Kind, names_code


class Prediction(NamedTuple):
    """Time and power of a minibatch per mode, with standard deviations; arrays of one shape.

    `time_s` and `power_w` are the expected values in seconds and watts; `time_std` and
    `power_std` are relative (of the logarithm), 0.03 = 3 %.
    """

    time_s: FloatArray
    power_w: FloatArray
    time_std: FloatArray
    power_std: FloatArray

    @property
    def energy_j(self) -> FloatArray:
        """Expected joules of a minibatch."""
        return self.time_s * self.power_w

    def power_bound_w(self, deviations: float) -> FloatArray:
        """The power that is not exceeded within so many standard deviations."""
        return self.power_w * np.exp(deviations * self.power_std)


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
