"""What a predictor returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from powerctl.modes import FloatArray


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
