"""A federated round on one device: what it offers, is assigned, plans and reports.

The way of a round: a device makes a `RoundOffer`, the server answers with a `RoundAssignment`,
`plan_round` turns it into a `RoundPlan`, and what really happened is a `RoundReport`. All times
are seconds on the device's clock, all energies joules of the module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from powerctl.errors import Infeasible, InvalidInput
from powerctl.modes import FloatArray, ModeArrays, PowerMode
from powerctl.pareto import pareto_front, thinned
from powerctl.powertrain.prediction import Prediction

POWER_POLICIES = ("maxn", "preset", "fastest", "slack")
SAFETY_DEVIATIONS = 3.0
FRONT_POINTS = 12
SWITCH_S = 0.2
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
        """Mean module power of each choice."""
        return self.energy_j / self.time_s

    def __len__(self) -> int:
        return len(self.modes)

    def segment(self, index: int, minibatches: int) -> Segment:
        """So many minibatches of one of the choices."""
        time_s, energy_j = float(self.time_s[index]), float(self.energy_j[index])
        return Segment(self.modes[index], minibatches, time_s, energy_j)


class Held(NamedTuple):
    """A mode held for a whole round, and what a minibatch takes in it, whatever the limits."""

    mode: PowerMode
    time_s: float
    energy_j: float


@dataclass(frozen=True)
class Limits:
    """What a device may spend on federated training.

    Attributes
    ----------
    power_w : float
        Limit on module power while training.
    energy_budget_j : float
        Training energy over the whole run.
    round_energy_j : float
        Training energy in any one round.
    celsius : float
        Limit on the temperature of any part of the board while training.
    """

    power_w: float = math.inf
    energy_budget_j: float = math.inf
    round_energy_j: float = math.inf
    celsius: float = math.inf

    def __post_init__(self) -> None:
        for name in ("power_w", "energy_budget_j", "round_energy_j", "celsius"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} must be positive, got {getattr(self, name):g}")

    def allowance_j(self, spent_j: float) -> float:
        """Energy that the next round may take after `spent_j` of the budget are gone."""
        return max(0.0, min(self.round_energy_j, self.energy_budget_j - spent_j))


@dataclass(frozen=True)
class RoundOffer:
    """What a device can do in the next round.

    Attributes
    ----------
    client : int
        Stable number of the client (its partition).
    examples, minibatches : int
        Local training examples, and minibatches of the full local work.
    loss : float
        Last training loss; NaN before the first round.
    front : Front
        Choices within the power limit; empty if there is none.
    maxn, preset : Held
        MAXN, in which the device is found, and the preset that a user would set for the power
        limit (`Board.preset_within`).
    idle_power_w : float
        Power while waiting.
    transfer_s : float
        Download and upload of the model.
    allowance_j : float
        Energy that this round may take.
    decline : str
        Why the device cannot take part; empty if it can.
    label_counts : tuple of float
        Local examples per label, with noise where privacy asks for it; empty if not told.
    battery_j, battery_capacity_j : float
        Energy left in the battery, and in a full one; infinite on mains.
    available_s : float
        How long the device expects to stay; infinite if it foresees no end.
    """

    client: int
    examples: int
    minibatches: int
    loss: float
    front: Front
    maxn: Held
    preset: Held
    idle_power_w: float
    transfer_s: float
    allowance_j: float
    decline: str = ""
    label_counts: tuple[float, ...] = ()
    battery_j: float = math.inf
    battery_capacity_j: float = math.inf
    available_s: float = math.inf


@dataclass(frozen=True)
class RoundAssignment:
    """What the server wants of a device.

    Attributes
    ----------
    client : int
        Whom it is for.
    minibatches : int
        Local work wanted.
    deadline_s : float
        Time from the round's start to the end of the upload.
    energy_cap_j : float
        The device's own allowance holds as well.
    power : str
        ``"slack"``: the least energy that meets the deadline; ``"fastest"``: as fast as the power
        limit allows; ``"preset"``: the preset for the power limit, what a user without powerctl
        sets; ``"maxn"``: MAXN, blind to limits and budget (the baseline without power awareness).
    """

    client: int
    minibatches: int
    deadline_s: float = math.inf
    energy_cap_j: float = math.inf
    power: str = "slack"

    def __post_init__(self) -> None:
        if self.power not in POWER_POLICIES:
            raise InvalidInput(f"power policy is one of {POWER_POLICIES}, not {self.power!r}")
        if self.minibatches < 1 or not self.deadline_s > 0 or not self.energy_cap_j >= 0:
            raise InvalidInput(f"an assignment of nothing: {self}")


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
    are what the change into the first mode takes.
    """

    segments: tuple[Segment, ...]
    decline: str = ""
    enter_s: float = 0.0
    enter_j: float = 0.0

    @property
    def minibatches(self) -> int:
        """Planned local work."""
        return sum(segment.minibatches for segment in self.segments)

    @property
    def time_s(self) -> float:
        """Expected seconds, changes between modes included."""
        switches_s = SWITCH_S * max(0, len(self.segments) - 1)
        return self.enter_s + switches_s + sum(s.minibatches * s.time_s for s in self.segments)

    @property
    def energy_j(self) -> float:
        """Expected joules, changes between modes included (each at the power before it)."""
        switches_j = sum(SWITCH_S * s.energy_j / s.time_s for s in self.segments[:-1])
        return self.enter_j + switches_j + sum(s.minibatches * s.energy_j for s in self.segments)


@dataclass(frozen=True)
class RoundReport:
    """What a round took on a device, beside what was planned.

    `time_s` and `energy_j` are of the training alone; `transfer_s` and waiting come on top. The
    work is counted as wanted by the server, planned within the limits, and done. `peak_power_w` is
    the highest mean over a second. `stopped` is empty, ``"deadline"`` or ``"energy"``: why training
    ended before the plan did. `decline` says why nothing was trained. `rms_loss` is the root mean
    square of the samples' losses behind `loss`; 0 where it was not measured. `used` is False if the
    update came after the round had closed and was dropped; `staleness` says how many rounds old the
    model was from which it started. `inference_p99_s` is the 99th percentile of the latency of what
    the device served meanwhile, of its slowest service; 0 where it served nothing, and
    `inference_budget_s` is the latency it may have. `guard_steps` counts how often the power guard
    stepped down, `guard_cause` says what the last step was for. `inference_energy_j` is what the
    requests took that were served meanwhile, which is not in `energy_j`. `lost` says why the update
    never came (``"crashed"``, ``"left"``, ``"battery"``, ``"silent"``), in simulations only: a
    server does not hear from such a client, but what it did is charged. `budget_left_j` is what is
    left of the device's energy budget after the round; infinite without one.
    """

    client: int
    examples: int
    minibatches: int
    time_s: float
    energy_j: float
    peak_power_w: float
    transfer_s: float
    idle_power_w: float
    loss: float
    power_limit_w: float
    allowance_j: float
    deadline_s: float
    wanted_minibatches: int
    planned_minibatches: int
    planned_time_s: float
    planned_energy_j: float
    modes: tuple[str, ...] = field(default=())
    stopped: str = ""
    decline: str = ""
    rms_loss: float = 0.0
    used: bool = True
    staleness: int = 0
    inference_p99_s: float = 0.0
    guard_steps: int = 0
    guard_cause: str = ""
    inference_budget_s: float = math.inf
    inference_energy_j: float = 0.0
    lost: str = ""
    budget_left_j: float = math.inf

    @property
    def expected_time_s(self) -> float:
        """The plan's seconds, for the work that was really done."""
        return self.planned_time_s * self.minibatches / self.planned_minibatches

    @property
    def expected_energy_j(self) -> float:
        """The plan's joules, for the work that was really done."""
        return self.planned_energy_j * self.minibatches / self.planned_minibatches

    @property
    def broke_power_limit(self) -> bool:
        """Whether power exceeded the device's limit."""
        return self.peak_power_w > self.power_limit_w

    @property
    def broke_budget(self) -> bool:
        """Whether training took more energy than the device allowed."""
        return self.energy_j > self.allowance_j

    @property
    def broke_latency(self) -> bool:
        """Whether inference took longer than its budget meanwhile."""
        return self.inference_p99_s > self.inference_budget_s


def front_within(
    modes: ModeArrays, prediction: Prediction, power_limit_w: float, n: int = FRONT_POINTS
) -> Front:
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
    n : int
        Points to thin the front to.

    Returns
    -------
    Front
        Empty if no mode stays within the limit.
    """
    within = np.flatnonzero(prediction.power_bound_w(SAFETY_DEVIATIONS) <= power_limit_w)
    time_s, energy_j = prediction.time_s[within], prediction.energy_j[within]
    picks = thinned(pareto_front(time_s, energy_j), time_s, n) if len(within) else within
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

    One mode, or two: time and energy add up over minibatches, so that the best plan mixes at most
    two points of the front (BoFL, Middleware 2022, section on exploitation); the switch between
    them is charged at the faster mode's power.

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
    enter_s = [SWITCH_S if found not in (None, mode) else 0.0 for mode in front.modes]
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


def plan_round(offer: RoundOffer, assignment: RoundAssignment) -> RoundPlan:
    """The device's plan for an assignment, never above its limits.

    If the whole work does not fit into deadline and energy, the most work that does; if not even
    one minibatch fits, a plan of nothing with the reason. The policy ``"maxn"`` is planned at
    MAXN in any case.

    Parameters
    ----------
    offer : RoundOffer
        The device's offer: its choices and allowance.
    assignment : RoundAssignment
        What the server wants.
    """
    wanted, maxn = assignment.minibatches, offer.maxn
    if assignment.power == "maxn":
        return RoundPlan((Segment(maxn.mode, wanted, maxn.time_s, maxn.energy_j),))
    if offer.decline:
        return RoundPlan((), offer.decline)
    front = offer.front
    if assignment.power == "fastest":
        front = Front(front.modes[:1], front.time_s[:1], front.energy_j[:1])
    elif assignment.power == "preset":
        mode, time_s, energy_j = offer.preset
        front = Front((mode,), np.array([time_s]), np.array([energy_j]))
    end_s = min(assignment.deadline_s, offer.available_s)
    deadline_s = (end_s - offer.transfer_s) * (1 - TIME_RESERVE)
    cap_j = min(assignment.energy_cap_j, offer.allowance_j)
    least = partial(cheapest, front, found=maxn.mode, idle_power_w=offer.idle_power_w)
    return _most_work(least, wanted, deadline_s, cap_j)


def _most_work(
    least: Callable[..., RoundPlan], wanted: int, deadline_s: float, cap_j: float
) -> RoundPlan:
    """The cheapest plan of the most minibatches, up to those wanted, within time and energy."""

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
