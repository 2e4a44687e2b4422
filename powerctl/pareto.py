"""Time-power and time-energy fronts of a mode space."""

from __future__ import annotations

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray, IntArray


def pareto_front(time_s: FloatArray, cost: FloatArray) -> IntArray:
    """Indices of the choices that no other beats in both time and cost, fastest first.

    Parameters
    ----------
    time_s, cost : FloatArray, shape (n,)
        To be kept low both; the cost is power or energy. Of equal choices the first stays.

    Returns
    -------
    IntArray, shape (n_front,)
        Time rises strictly along it and cost falls strictly.
    """
    order = np.lexsort((cost, time_s))
    sorted_cost = cost[order]
    cheapest_before = np.concatenate(([np.inf], np.minimum.accumulate(sorted_cost)[:-1]))
    return np.asarray(order[sorted_cost < cheapest_before], dtype=np.int64)


def thinned(front: IntArray, time_s: FloatArray, n: int) -> IntArray:
    """At most `n` points of a front, both ends kept, evenly spread in the logarithm of time."""
    if n < 2:
        raise InvalidInput(f"a thinned front keeps at least its 2 ends, got {n}")
    return evenly_spread(front, np.log(time_s), n)


def evenly_spread(front: IntArray, along: FloatArray, n: int) -> IntArray:
    """At most `n` points of a front, its ends among them, evenly spread along some coordinate."""
    if len(front) <= n:
        return front
    places = along[front]
    wanted = np.linspace(places[0], places[-1], n)
    nearest = np.abs(places[None, :] - wanted[:, None]).argmin(axis=1)
    return np.asarray(front[np.unique(nearest)], dtype=np.int64)
