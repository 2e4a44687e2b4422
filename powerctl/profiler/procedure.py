"""How a mode is measured: how long, how precisely, at what pace the sensor is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from powerctl.errors import InvalidInput


@dataclass(frozen=True)
class Procedure:
    """When a mode is measured well enough.

    Attributes
    ----------
    min_minibatches : int
        Minibatches counted at least, after the warm-up (PowerTrain: 40, because the fast modes
        end inside one reading of the power sensor with fewer).
    time_error, power_error : float
        Half width that the 95 % confidence interval of the mean may have, relative: 0.02 is 2 %.
    min_power_windows : int
        Settled readings of power at least.
    max_minibatches : int
        Minibatches counted at most.
    max_seconds : float
        Time of a mode at most, on the device's clock; the minibatch under way is finished, and
        one minibatch after the first is always run.
    """

    min_minibatches: int = 40
    time_error: float = 0.02
    power_error: float = 0.01
    min_power_windows: int = 3
    max_minibatches: int = 20_000
    max_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("min_minibatches", "min_power_windows"):
            if getattr(self, name) < 2:
                raise InvalidInput(f"{name} is {getattr(self, name)}; a spread needs at least 2")
        for name in ("time_error", "power_error"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, not between 0 and 1")
        if self.max_minibatches < self.min_minibatches:
            raise InvalidInput(
                f"max_minibatches is {self.max_minibatches}, "
                f"below min_minibatches {self.min_minibatches}"
            )
        if not 0 < self.max_seconds < math.inf:
            raise InvalidInput(f"max_seconds is {self.max_seconds}, not a positive number")
