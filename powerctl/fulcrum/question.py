"""What people ask of a mode: the fastest, or the one of least energy, within limits.

Errors of predictions are log-normal: at a confidence c, a mode whose power or time is expected to
be v, with the relative standard deviation d, needs at most v exp(z d), where z is the c-quantile of
the standard normal distribution (1.28 for c = 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from powerctl.errors import Infeasible, InvalidInput
from powerctl.modes import BoolArray, FloatArray
from powerctl.powertrain.prediction import Prediction
from powerctl.quantities import spoken


@dataclass(frozen=True)
class Limit:
    """A limit, beside what each mode needs of it: expected, spread, and bound at a confidence."""

    name: str
    unit: str
    most: float
    value: FloatArray
    std: FloatArray
    confidence: float

    @property
    def bound(self) -> FloatArray:
        """What each mode does not exceed at the confidence."""
        deviations = NormalDist().inv_cdf(self.confidence)
        return np.asarray(self.value * np.exp(deviations * self.std))

    @property
    def kept(self) -> BoolArray:
        """Whether each mode keeps the limit at the confidence."""
        return self.bound <= self.most

    def entry(self, row: int) -> dict[str, Any]:
        """What a mode needs of the limit, for JSON: times in ms."""
        unit, scale = ("ms", 1e3) if self.unit == "s" else (self.unit, 1.0)
        return {
            "limit": self.name,
            "unit": unit,
            "most": scale * self.most,
            "expected": scale * float(self.value[row]),
            "bound": scale * float(self.bound[row]),
            "confidence": self.confidence,
        }

    def shown(self, value: float) -> str:
        """A value in the limit's unit, for people."""
        return spoken(value, self.unit, 4)

    def spoken(self, row: int) -> str:
        """What a mode needs, how sure that is, and by what margin it keeps the limit."""
        needs = self.shown(self.value[row])
        if self.std[row] > 0:
            needs = f"predicted {needs} ± {100 * self.std[row]:.1f} %"
            if self.confidence > 0.5:
                sure = f"{100 * self.confidence:.4g} % confidence"
                needs += f", {self.shown(self.bound[row])} at {sure}"
        margin = self.most - float(self.bound[row])
        side = "below" if margin >= 0 else "above"
        return (
            f"{self.name} {self.shown(self.most)}: {needs}: "
            f"{spoken(abs(margin), self.unit, 2)} {side} the limit"
        )


@dataclass(frozen=True)
class Question:
    """The fastest mode, or with `least_energy` the most frugal one, within all limits given.

    Attributes
    ----------
    least_energy : bool
        Of least energy a minibatch; else of least time.
    power_limit_w, deadline_s : float or None
        Bounds that the module's power and the time of a minibatch keep at the confidence.
    slowdown : float or None
        How much slower than the fastest mode within the other limits, expected: 0.05 is 5 %.
    confidence : float
        Probability, for each limit by itself, that it is kept; 0.5 asks for no margin.
    """

    least_energy: bool = False
    power_limit_w: float | None = None
    deadline_s: float | None = None
    slowdown: float | None = None
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for name, value in (("power limit", self.power_limit_w), ("deadline", self.deadline_s)):
            if value is not None and not value > 0:
                raise InvalidInput(f"a {name} must be positive, got {value:g}")
        if self.slowdown is not None and not self.slowdown >= 0:
            raise InvalidInput(f"a slow-down must be at least 0, got {self.slowdown:g}")
        if not 0.5 <= self.confidence < 1:
            raise InvalidInput(
                f"a confidence is from 0.5 (no margin) to below 1, got {self.confidence:g}"
            )

    def limits(self, costs: Prediction) -> list[Limit]:
        """The limits, with what each mode needs of them."""
        found = []
        if self.power_limit_w is not None:
            watts = (costs.power_w, costs.power_std)
            found.append(Limit("power limit", "W", self.power_limit_w, *watts, self.confidence))
        if self.deadline_s is not None:
            times = (costs.time_s, costs.time_std)
            found.append(Limit("deadline", "s", self.deadline_s, *times, self.confidence))
        if self.slowdown is not None:
            kept = np.logical_and.reduce([limit.kept for limit in found])
            slower = 100 * (costs.time_s / costs.time_s.min(where=kept, initial=np.inf) - 1)
            certain = np.zeros_like(slower)
            found.append(Limit("slow-down", "%", 100 * self.slowdown, slower, certain, 0.5))
        return found

    def answer(self, costs: Prediction) -> int:
        """Row of the mode asked for; ties go to the mode that is better in the other respect.

        Raises
        ------
        Infeasible
            If no mode keeps the limits; the message names the nearest there is.
        """
        allowed, within = np.arange(len(costs.time_s)), ""
        for limit in self.limits(costs):
            nearest = float(limit.bound[allowed].min())
            allowed = allowed[limit.kept[allowed]]
            if not len(allowed):
                sure = f" at {100 * limit.confidence:.4g} % confidence" if limit.std.any() else ""
                raise Infeasible(
                    f"no mode{within} keeps the {limit.name} of {limit.shown(limit.most)}{sure}; "
                    f"the least there is: {limit.shown(nearest)}"
                )
            within += f" within {limit.shown(limit.most)}"
        time_s, energy_j, power_w = (
            column[allowed] for column in (costs.time_s, costs.energy_j, costs.power_w)
        )
        keys = (time_s, energy_j) if self.least_energy else (power_w, time_s)
        return int(allowed[np.lexsort(keys)[0]])
