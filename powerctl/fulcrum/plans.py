"""Plans of work in minibatches: which power modes, for how many of them, within time and energy.

======  ==========================================================  ==================
symbol  meaning                                                     here
======  ==========================================================  ==================
n       minibatches to do                                           `minibatches`
t_i     seconds of a minibatch in choice i of a front               `Front.time_s`
e_i     joules of the module for it                                 `Front.energy_j`
s       seconds that a change of mode takes, at the power before    `SWITCH_S`
T       seconds until the deadline, on the device's clock           `deadline_s`
k       minibatches in j, the slower one of two choices             `n_slow`
======  ==========================================================  ==================

One choice takes n t_i and n e_i. Two take (n - k) t_i + k t_j + s, which is at most T for
k <= (T - n t_i - s) / (t_j - t_i), and (n - k) e_i + k e_j + s e_i / t_i: of least energy with the
largest k. More than two never cost less (BoFL, Middleware 2022, section on exploitation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from powerctl.errors import Infeasible
from powerctl.modes import FloatArray, ModeArrays, PowerMode
from powerctl.pareto import pareto_front, thinned
from powerctl.powertrain.prediction import Prediction

SAFETY_DEVIATIONS = 3.0  # of a normal error: one mode in 740 exceeds its limit
FRONT_POINTS = 12  # that an offer carries: plans mix two neighbours, so that more add little
SWITCH_S = 0.2  # assumed: neither PowerTrain nor Fulcrum reports how long a change takes
TIME_RESERVE = 0.1  # plans end this share of their time before the deadline: predictions err


@dataclass(frozen=True, eq=False)
class Front:
    """A device's choices for one minibatch: modes with their time, energy and power.

    Sorted from the fastest to the one of least energy; arrays of shape (n,). They do not change:
    plans made from a front are remembered.
    """

    modes: tuple[PowerMode, ...]
    time_s: FloatArray
    energy_j: FloatArray

    @property
    def power_w(self) -> FloatArray:
        """Mean power of the module in each choice, in watts."""
        return self.energy_j / self.time_s

    def __len__(self) -> int:
        return len(self.modes)

    def segment(self, index: int, minibatches: int) -> Segment:
        """A segment of so many minibatches in the choice at an index."""
        time_s, energy_j = float(self.time_s[index]), float(self.energy_j[index])
        return Segment(self.modes[index], minibatches, time_s, energy_j)


class FixedMode(NamedTuple):
    """A mode kept for a whole round whatever the limits, and what a minibatch takes in it."""

    mode: PowerMode
    time_s: float
    energy_j: float


class Segment(NamedTuple):
    """So many minibatches in one mode, and the seconds and joules expected of each."""

    mode: PowerMode
    minibatches: int
    time_s: float
    energy_j: float


@dataclass(frozen=True)
class RoundPlan:
    """Which modes the device trains in, for how many minibatches each, and what that should cost.

    `segments` is empty when the device declines; `decline` then says why. `enter_s` and `enter_j`
    are what the change into the first mode takes, and warming up.
    """

    segments: tuple[Segment, ...]
    decline: str = ""
    enter_s: float = 0.0
    enter_j: float = 0.0

    @property
    def minibatches(self) -> int:
        """The number of minibatches in all segments."""
        return sum(segment.minibatches for segment in self.segments)

    @property
    def time_s(self) -> float:
        """Seconds that the whole plan should take, changes between modes included."""
        switches_s = SWITCH_S * max(0, len(self.segments) - 1)
        return self.enter_s + switches_s + sum(s.minibatches * s.time_s for s in self.segments)

    @property
    def energy_j(self) -> float:
        """Expected joules, changes between modes included (each at the power before it)."""
        switches_j = sum(SWITCH_S * s.energy_j / s.time_s for s in self.segments[:-1])
        return self.enter_j + switches_j + sum(s.minibatches * s.energy_j for s in self.segments)


def front_within(modes: ModeArrays, prediction: Prediction, power_limit_w: float) -> Front:
    """The time-energy front of the modes that surely stay within a power limit.

    Parameters
    ----------
    modes : ModeArrays, shape (n_modes,)
        The modes predicted.
    prediction : Prediction
        Of a minibatch in each.
    power_limit_w : float
        A mode counts as within it if `SAFETY_DEVIATIONS` standard deviations above its predicted
        power still are.

    Returns
    -------
    Front
        Thinned to `FRONT_POINTS`; empty if no mode stays within the limit.
    """
    within = np.flatnonzero(prediction.power_bound_w(SAFETY_DEVIATIONS) <= power_limit_w)
    time_s, energy_j = prediction.time_s[within], prediction.energy_j[within]
    picks = thinned(pareto_front(time_s, energy_j), time_s, FRONT_POINTS) if len(within) else within
    return Front(
        modes=tuple(modes.take(within[picks]).objects()),
        time_s=time_s[picks],
        energy_j=energy_j[picks],
    )


_Mix = tuple[float, float, tuple[tuple[int, int], ...]]
"""Energy and time of so many minibatches in each of one or two choices of a front."""


@lru_cache(maxsize=4096)  # a fleet has many units that offer, and are asked, the same
def cheapest(
    front: Front,
    minibatches: int,
    deadline_s: float,
    *,
    found: PowerMode | None = None,
    idle_power_w: float = 0.0,
) -> RoundPlan:
    """The plan of least energy for so many minibatches within a time.

    One mode, or the faster and then the slower of two.

    Parameters
    ----------
    front : Front
        The modes to choose from.
    minibatches : int
        Work to do.
    deadline_s : float
        Seconds that it may take.
    found : PowerMode, optional
        The mode in which the device is found: any other first costs a switch, at idle power, which
        counts in a short round. Without it, no switch is charged for the first mode.
    idle_power_w : float
        Power before the work begins.

    Raises
    ------
    Infeasible
        If even the fastest choice takes longer.
    """
    if not len(front):
        raise Infeasible("no mode stays within the power limit")
    enter_s = [0.0 if found is None or mode == found else SWITCH_S for mode in front.modes]
    mixes = list(_mixes_in_time(front, minibatches, deadline_s, enter_s, idle_power_w))
    if not mixes:
        least_s = (np.array(enter_s) + minibatches * front.time_s).min()
        raise Infeasible(
            f"{minibatches} minibatches take at least {least_s:.3g} s, {deadline_s:.3g} s are left"
        )
    _, _, best = min(mixes, key=itemgetter(0, 1))
    first, _ = best[0]
    segments = tuple(front.segment(index, count) for index, count in best)
    return RoundPlan(segments, enter_s=enter_s[first], enter_j=enter_s[first] * idle_power_w)


def _mixes_in_time(
    front: Front, minibatches: int, deadline_s: float, enter_s: list[float], idle_power_w: float
) -> Iterator[_Mix]:
    """Each mode, and each with a slower one for as many minibatches as the spare time admits."""
    times_s, energies_j = front.time_s.tolist(), front.energy_j.tolist()
    for fast, (fast_s, fast_j) in enumerate(zip(times_s, energies_j, strict=True)):
        enter_j = enter_s[fast] * idle_power_w
        single_s = enter_s[fast] + minibatches * fast_s
        if single_s > deadline_s:
            continue
        yield enter_j + minibatches * fast_j, single_s, ((fast, minibatches),)
        for slow in range(fast + 1, len(times_s)):
            fits = (deadline_s - single_s - SWITCH_S) / (times_s[slow] - fast_s)
            if fits < 1:
                break
            if fits < minibatches:
                n_slow = int(fits)
                n_fast = minibatches - n_slow
                work_j = n_fast * fast_j + n_slow * energies_j[slow]
                work_s = n_fast * fast_s + n_slow * times_s[slow]
                energy_j = enter_j + work_j + SWITCH_S * fast_j / fast_s
                time_s = enter_s[fast] + work_s + SWITCH_S
                yield energy_j, time_s, ((fast, n_fast), (slow, n_slow))


def most_work(
    least: Callable[..., RoundPlan], wanted: int, deadline_s: float, cap_j: float
) -> RoundPlan:
    """The cheapest plan of the most minibatches, up to those wanted, within time and energy.

    Parameters
    ----------
    least : callable
        `cheapest` but for `minibatches` and `deadline_s`.
    wanted : int
        Minibatches.
    deadline_s, cap_j : float
        Seconds and joules that they may take.

    Returns
    -------
    RoundPlan
        Of nothing, with the reason, if not even one fits.
    """

    def attempt(minibatches: int) -> RoundPlan:
        try:
            plan = least(minibatches=minibatches, deadline_s=deadline_s)
        except Infeasible as reason:
            return RoundPlan((), str(reason))
        if plan.energy_j > cap_j:
            what = "a minibatch needs" if minibatches == 1 else f"{minibatches} minibatches need"
            return RoundPlan((), f"{what} {plan.energy_j:.3g} J, {cap_j:.3g} J are left")
        return plan

    best = attempt(wanted)
    if not best.decline:
        return best
    low, high = 0, wanted  # the cheapest energy rises with the work, so bisection finds the most
    best = attempt(1)
    while high - low > 1:
        middle = (low + high) // 2
        plan = attempt(middle)
        if plan.decline:
            high = middle
        else:
            low, best = middle, plan
    return best
