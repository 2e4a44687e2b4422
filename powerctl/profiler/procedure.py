"""How a mode is measured: for how long, how precisely, and when times and power are steady."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray


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


_CONFIDENCE = 0.95
_TREND_NEEDS = 8
"""Settled windows from which their own scatter says whether a trend is significant."""


def mean_and_spread(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Weighted mean, exact for equal values, and the plain standard deviation (0 for one value)."""
    offset = float(values[0])
    beyond = values - offset
    mean = offset + float(np.dot(beyond, weights) / weights.sum())
    return mean, float(beyond.std(ddof=1)) if len(values) > 1 else 0.0


def half_width(std: float, n: int) -> float:
    """Half width of the 95 % confidence interval (Student t) of a mean of `n` values."""
    if n < 2:
        return math.inf
    return float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2)) * std / math.sqrt(n)


def warm_up(times_s: FloatArray) -> int:
    """How many leading minibatches are warm-up.

    The first one always: kernels are selected in it (5 s on an AGX Orin, 97 s on an Orin Nano,
    where the ones after it took 0.2 to 1 s). Then those that follow without a gap and are clearly
    slower than the later half: by more than half its median, and by five of its robust standard
    deviations (1.48 median absolute deviations), so that the wide scatter of slow CPU clocks does
    not count as warm-up.

    Parameters
    ----------
    times_s : FloatArray, shape (n,)
        Seconds of the minibatches, in order; at least two.
    """
    later = times_s[len(times_s) // 2 :]
    median = float(np.median(later))
    scatter = 1.4826 * float(np.median(np.abs(later - median)))
    normal = times_s[1:] <= median + max(0.5 * median, 5 * scatter)
    return 1 + int(np.argmax(normal))


def settled_from(power_w: FloatArray, procedure: Procedure) -> int | None:
    """The window from which power has settled; None if it has not, or not yet.

    Leading windows are dropped, one after another, until those that remain

    - are at least `min_power_windows`, and at least as many as were dropped: over a shorter
      stretch a slow approach looks level;
    - have no trend: the line fitted to them changes, from the first to the last, by at most a
      quarter of `power_error`; or, from eight windows on, where their own scatter tells noise
      from trend, by no more than the 95 % confidence interval of that change.

    Parameters
    ----------
    power_w : FloatArray, shape (n,)
        Mean power of the windows, in order.
    procedure : Procedure
        Its `power_error` and `min_power_windows`.
    """
    total = len(power_w)
    x, y = np.arange(total, dtype=np.float64), power_w - power_w.mean()
    n = total - x  # windows that remain when the first x are dropped
    long_enough = n >= np.maximum(procedure.min_power_windows, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = _suffix_sums(x) / n, _suffix_sums(y) / n
        sxx = _suffix_sums(x * x) - n * mean_x**2
        sxy = _suffix_sums(x * y) - n * mean_x * mean_y
        syy = _suffix_sums(y * y) - n * mean_y**2
        change = np.abs(sxy / sxx) * (n - 1)
        error = np.sqrt(np.maximum(syy - sxy**2 / sxx, 0) / (n - 2) / sxx) * (n - 1)
        noise = stdtrit(np.maximum(n - 2, 1), (1 + _CONFIDENCE) / 2) * error
        level = change <= procedure.power_error / 4 * power_w.mean()
        level |= (n >= _TREND_NEEDS) & (change <= noise)
    passing = np.flatnonzero(long_enough & level)
    return int(passing[0]) if len(passing) else None


def _suffix_sums(values: FloatArray) -> FloatArray:
    sums: FloatArray = np.cumsum(values[::-1])[::-1]
    return sums
