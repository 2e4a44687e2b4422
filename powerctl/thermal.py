"""How a board heats and cools: one thermal resistance and one time constant.

======  ==================================================  ====  ==============
symbol  meaning                                             unit  here
======  ==================================================  ====  ==============
T       temperature of the hottest part                     C     `celsius`
A       temperature of the air around it                    C     `ambient_c`
R       rise above the air for each watt of the module      K/W   `k_per_w`
tau     time constant of heat sink and module               s     `tau_s`
P       power of the module                                 W     `power_w`
======  ==================================================  ====  ==============

At a constant power T approaches A + R P by the share 1 - exp(-t / tau) in t seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Thermal:
    """A board's first-order thermal model, and the temperature at which it throttles.

    Attributes
    ----------
    ambient_c : float
        Temperature of the air around it.
    k_per_w : float
        Rise above the air in kelvin, for each watt of the module.
    tau_s : float
        Seconds after which 63 % of a rise are there.
    throttle_c : float
        Temperature above which the board lowers its clocks.
    """

    ambient_c: float
    k_per_w: float
    tau_s: float
    throttle_c: float

    def steady_c(self, power_w: float) -> float:
        """The temperature that a constant power leads to."""
        return self.ambient_c + self.k_per_w * power_w

    def after_c(self, celsius: float, power_w: float, seconds: float) -> float:
        """The temperature after some seconds of a constant power."""
        steady_c = self.steady_c(power_w)
        return steady_c + (celsius - steady_c) * math.exp(-seconds / self.tau_s)

    @property
    def sustained_w(self) -> float:
        """The power that holds the board at the temperature at which it throttles."""
        return (self.throttle_c - self.ambient_c) / self.k_per_w
