"""A predictor fitted to measured modes, corrected by what this unit itself has measured since."""

from __future__ import annotations

from powerctl.modes import ModeArrays
from powerctl.powertrain.correction import CorrectedPredictor
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.prediction import Prediction


class FittedPredictor(CorrectedPredictor):
    """A fitted predictor at one batch size, times a factor of this unit.

    Parameters
    ----------
    fitted : GaussianPredictor
    batch_size : int
        Samples of a minibatch.
    """

    def __init__(self, fitted: GaussianPredictor, batch_size: int) -> None:
        super().__init__()
        self.fitted = fitted
        self.batch_size = batch_size

    @property
    def origin(self) -> tuple[GaussianPredictor, int]:
        """The fitted predictor, and the batch size."""
        return self.fitted, self.batch_size

    def expected(self, modes: ModeArrays) -> Prediction:
        """What the fitted predictor says."""
        return self.fitted.predict(modes, self.batch_size)
