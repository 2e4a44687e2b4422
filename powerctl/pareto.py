"""Time-power and time-energy fronts of a mode space, and the questions people ask of them."""

from __future__ import annotations

import numpy as np

from powerctl.errors import Infeasible, InvalidInput
from powerctl.modes import BoolArray, FloatArray, IntArray


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
    if len(front) <= n:
        return front
    log_time = np.log(time_s[front])
    wanted = np.linspace(log_time[0], log_time[-1], n)
    nearest = np.abs(log_time[None, :] - wanted[:, None]).argmin(axis=1)
    return np.asarray(front[np.unique(nearest)], dtype=np.int64)


def fastest_within(time_s: FloatArray, power_w: FloatArray, limit_w: float) -> int:
    """Index of the fastest choice whose power stays within a limit.

    Ties go to the choice of least power. Raises `Infeasible`, naming the least power there is,
    if no choice stays within the limit (PowerTrain, section 4.3: the problem it optimises).
    """
    _check_positive("power limit", limit_w, "W")
    return _best(
        power_w <= limit_w,
        (power_w, time_s),
        f"no mode stays within {limit_w:g} W; the least there is: {power_w.min():.3g} W",
    )


def least_energy_within(time_s: FloatArray, power_w: FloatArray, deadline_s: float) -> int:
    """Index of the choice of least energy that takes at most `deadline_s`.

    Ties go to the faster choice. Raises `Infeasible`, naming the shortest time there is.
    """
    _check_positive("deadline", deadline_s, "s")
    return _best(
        time_s <= deadline_s,
        (time_s, time_s * power_w),
        f"no mode meets {deadline_s:g} s; the shortest there is: {time_s.min():.3g} s",
    )


def _best(feasible: BoolArray, keys: tuple[FloatArray, ...], message: str) -> int:
    """The feasible index that is least by the last key, then by the one before."""
    candidates = np.flatnonzero(feasible)
    if not len(candidates):
        raise Infeasible(message)
    return int(candidates[np.lexsort(tuple(key[candidates] for key in keys))[0]])


def _check_positive(what: str, value: float, unit: str) -> None:
    if not value > 0:
        raise InvalidInput(f"a {what} must be positive, got {value:g} {unit}")
