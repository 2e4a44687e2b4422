"""Random numbers that are a function of what they are for, so that any can be had at any time.

A generator gives its numbers in one order, so that client 7 in round 30 would depend on who was
asked before. Here a number depends only on the seed, the subject, the client and a count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from powerctl.modes import FloatArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, subject: int, client: ArrayLike, count: ArrayLike) -> FloatArray:
    """Numbers between 0 and 1, both excluded, evenly distributed.

    Four rounds of the SplitMix64 generator's mixing function (Steele, Lea, Flood, OOPSLA 2014).

    Parameters
    ----------
    seed, subject : int
        Of the run, and what the numbers are for.
    client, count : int or array of int
        Whose, and which of its numbers; broadcast.
    """
    with np.errstate(over="ignore"):
        mixed = _mixed(_mixed(np.array([seed], np.uint64)) ^ np.uint64(subject))
        mixed = _mixed(mixed ^ np.asarray(client).astype(np.uint64))
        mixed = _mixed(mixed ^ np.asarray(count).astype(np.uint64))
    return np.asarray(((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def exponential(seed: int, subject: int, client: ArrayLike, count: ArrayLike) -> FloatArray:
    """Numbers with an exponential distribution of mean 1."""
    return np.asarray(-np.log(uniform(seed, subject, client, count)))


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + _STEP
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
