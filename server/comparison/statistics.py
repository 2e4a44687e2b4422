"""Means over seeds and their confidence intervals, plain and as ratios to a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % interval; NaN where there are too few seeds."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean and Student's t-interval; no interval of fewer than two values."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def ratio_interval(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """How many times ours the baseline is: over the seeds that both have, paired by seed.

    The geometric mean of the ratios, and the t-interval of their logarithms. A run that took
    nothing, since the initial model was good enough, has no ratio.
    """
    common = sorted(ours.keys() & baseline.keys())
    paired = [seed for seed in common if ours[seed] > 0 and baseline[seed] > 0]
    logs = mean_interval([math.log(baseline[seed] / ours[seed]) for seed in paired])
    return Estimate(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.n)
