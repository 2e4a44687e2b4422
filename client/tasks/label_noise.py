"""Noise on the counts of labels that a client tells, so that they tell little of one example.

| symbol  | meaning                                       | unit | from                       |
|---------|-----------------------------------------------|------|----------------------------|
| epsilon | what one example may change, as a log ratio   | 1    | `label-privacy` of the run |
| u       | random numbers, even above 0 and up to 1      | 1    | the operating system       |
| g       | floor(-ln u / epsilon), geometric: it is n or | 1    | u                          |
|         | more with the chance exp(-n epsilon)          |      |                            |
"""

from __future__ import annotations

import math
from random import Random, SystemRandom

import numpy as np

from powerctl.modes import FloatArray


def private_counts(counts: FloatArray, epsilon: float, random: Random | None = None) -> FloatArray:
    """Counts with discrete Laplace noise, g - g', that nobody can draw again.

    Whether a client has one example more or less is differentially private with this epsilon: the
    counts differ by one in one place. The noise is whole, as the counts are: digits of fractional
    noise would tell which count they were added to.

    Parameters
    ----------
    counts : FloatArray, shape (labels,)
        Examples of each label.
    epsilon : float
        Above 0.
    random : Random, optional
        By default the operating system's entropy.

    References
    ----------
    Ghosh, Roughgarden and Sundararajan, STOC 2009 (the geometric mechanism); Mironov, CCS 2012
    (what the digits of fractional noise tell).
    """
    source = random or SystemRandom()

    def geometric() -> int:
        return math.floor(-math.log(1 - source.random()) / epsilon)

    return counts + np.array([geometric() - geometric() for _ in counts], dtype=np.float64)
