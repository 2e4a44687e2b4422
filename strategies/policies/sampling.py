"""Weighted sampling without replacement, for many clients and any weights."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray


def weighted_sample(weights: FloatArray, size: int, rng: Generator) -> IntArray:
    """Indices drawn one after the other, each with a chance in proportion to its weight.

    Unlike ``rng.choice(p=...)`` it never fails for want of positive weights: indices of weight
    zero come when no other is left.

    Parameters
    ----------
    weights : FloatArray, shape (n,)
        Not negative.
    size : int
        How many; all if there are fewer.

    Returns
    -------
    IntArray, shape (min(size, n),)
        In no particular order.

    References
    ----------
    Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006: the smallest of
    exponential variables divided by the weights.
    """
    if size >= len(weights):
        return np.arange(len(weights))
    floor = 1e-12 * float(weights.max()) or 1.0
    keys = rng.exponential(size=len(weights)) / np.maximum(weights, floor)
    return smallest(keys, size)


def smallest(values: FloatArray, size: int) -> IntArray:
    """Indices of the `size` smallest values, in no particular order; all if there are fewer."""
    if size >= len(values):
        return np.arange(len(values))
    if size <= 0:
        return np.zeros(0, dtype=np.int64)
    return np.argpartition(values, size - 1)[:size]
