"""Intervals from repetitions: means, ratios of two sets, and many comparisons at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
LEAST = 1e-9  # a ratio needs something: below any time or energy that there is


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions and its 95 % interval, whose ends are NaN with fewer than two."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval; NaN without one."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Ratio:
    """How much one mean is of another, with the 95 % interval, and p of their being equal."""

    value: float
    low: float
    high: float
    p: float

    def within(self, margin: float) -> bool:
        """Whether the interval excludes a change of `margin` (0.05: 5 %) or more either way."""
        return self.low > 1 - margin and self.high < 1 + margin

    def __str__(self) -> str:
        """As a change: ``+1.2 %, 95 % CI -0.3 to +2.7 %``."""
        value, low, high = (100 * (each - 1) for each in (self.value, self.low, self.high))
        return f"{value:+.1f} %, 95 % CI {low:+.1f} to {high:+.1f} %"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of repetitions, with Student's interval."""
    n, mean = len(values), float(np.mean(values)) if len(values) else math.nan
    if n < 2 or not math.isfinite(mean):
        return Estimate(mean, math.nan, math.nan, n)
    half = float(np.std(values, ddof=1)) / math.sqrt(n) * _quantile(n - 1)
    return Estimate(mean, mean - half, mean + half, n)


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """The ratio of the (geometric) means of two sets of runs, by Welch's t on their logarithms.

    Time and energy of runs scatter by a share of themselves, so that their logarithms scatter
    alike; Welch's interval does not ask that both sets scatter the same.
    """
    from scipy import stats

    logs = [np.log(np.maximum(np.asarray(v, dtype=np.float64), LEAST)) for v in (before, after)]
    difference = float(logs[1].mean() - logs[0].mean())
    value = math.exp(difference) if math.isfinite(difference) else math.nan
    if min(map(len, logs)) < 2 or math.isnan(value):
        return Ratio(value, math.nan, math.nan, math.nan)
    shares = [float(log.var(ddof=1)) / len(log) for log in logs]
    error = math.sqrt(sum(shares))
    if error < 1e-12:  # a device without noise
        return Ratio(value, value, value, 1.0 if abs(difference) < 1e-12 else 0.0)
    freedom = sum(shares) ** 2 / sum(
        share**2 / (len(log) - 1) for share, log in zip(shares, logs, strict=True)
    )
    half = error * _quantile(freedom)
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Ratio(value, math.exp(difference - half), math.exp(difference + half), p)


def paired_ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """The same of runs that were made side by side, by Student's t on the logarithms of ratios."""
    from scipy import stats

    logs = [np.log(np.maximum(np.asarray(v, dtype=np.float64), LEAST)) for v in (before, after)]
    found = estimate((logs[1] - logs[0]).tolist())
    if math.isnan(found.half_width):
        return Ratio(math.exp(found.mean), math.nan, math.nan, math.nan)
    p = float(stats.ttest_rel(logs[1], logs[0]).pvalue) if found.half_width > 0 else 0.0
    return Ratio(math.exp(found.mean), math.exp(found.low), math.exp(found.high), p)


def ratio_by_seed(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """How many times ours the baseline is: over the seeds that both have, paired by seed.

    The geometric mean of the ratios, and the t-interval of their logarithms. A run that took
    nothing, since the initial model was good enough, has no ratio.
    """
    common = sorted(ours.keys() & baseline.keys())
    paired = [seed for seed in common if ours[seed] > 0 and baseline[seed] > 0]
    logs = estimate([math.log(baseline[seed] / ours[seed]) for seed in paired])
    return Estimate(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.n)


def lower_median(values: NDArray[Any]) -> float:
    """The median of some numbers, the lower of two: half of those who tell them may lie."""
    middle = (len(values) - 1) // 2
    return float(np.partition(values, middle)[middle])


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, raised for how many there are (Holm 1979); NaN stays."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = list(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def spoken_number(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent: ``0.0123``, ``51.3``, ``1,140``."""
    if abs(value) >= 10**digits:
        return f"{float(f'{value:.{digits}g}'):,.0f}"
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")


def _quantile(freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
