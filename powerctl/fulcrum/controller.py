"""A window controller: the mode and batch size for the rate at which requests arrive now.

Pure: it is told of arrivals and of the time, and answers with what should be in force. Whoever
drives it has the clock, measures, and applies modes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.special import gammaincinv

from powerctl.errors import Infeasible, InvalidInput
from powerctl.fulcrum.problems import Assessment, Concurrent, InferAlone, Job, TwoInferences
from powerctl.fulcrum.search import Candidates, Measure, Record, Search, best_of
from powerctl.fulcrum.solvers import Solver
from powerctl.modes import FloatArray, PowerMode

Serving: TypeAlias = InferAlone | Concurrent | TwoInferences

_LEAST_SHARE = 0.1  # of the time, that requests must leave: nearer to 1 a queue grows long


@dataclass(frozen=True)
class Reaction:
    """How a controller follows the rate.

    Attributes
    ----------
    window_s : float
        Over which the rate is estimated.
    quick_s : float
        Shorter window in which a sudden rise shows.
    quantile : float
        Confidence with which the rate planned for is not below the true one, if requests in a
        window are Poisson distributed.
    alarm : float
        Confidence at which the short window says that the rate is above the one planned for.
    band : float
        How far below the rate planned for the rate may fall before it is planned anew: 0.2 is 20 %.
    memory_s : float
        How long the highest rate of the short window is remembered: a plan should keep up with it
        while the other job yields, as the next rise shows only when it has come.
    probes : int
        Modes that may be measured each time, after a look-up among those known.
    gain : float
        Relative gain below which the mode in force is kept, as a change costs too.
    first_cap : int
        Modes that may be measured for the first plan.
    """

    window_s: float = 10.0
    quick_s: float = 2.0
    quantile: float = 0.95
    alarm: float = 0.999
    band: float = 0.2
    memory_s: float = 300.0
    probes: int = 3
    gain: float = 0.05
    first_cap: int = 15

    def __post_init__(self) -> None:
        if not 0 < self.quick_s <= self.window_s:
            raise InvalidInput(
                f"the windows must be 0 < quick_s <= window_s, got {self.quick_s:g} and "
                f"{self.window_s:g} s"
            )
        for name in ("quantile", "alarm", "band"):
            if not 0 < getattr(self, name) < 1:
                raise InvalidInput(f"{name} is between 0 and 1, got {getattr(self, name):g}")
        if self.probes < 0 or self.gain < 0 or self.first_cap < 1 or self.memory_s < 0:
            raise InvalidInput("probes, gain and memory_s are at least 0, and first_cap 1")


class ServingPlan(NamedTuple):
    """What should be in force.

    Attributes
    ----------
    mode : PowerMode
    batch_size : int
        Of the requests that are served; a batch whose oldest request can wait no longer runs
        with fewer.
    other : Job or None
        What runs between the batches: training, a background inference, or nothing.
    rate_hz : float
        The rate that this was planned for.
    feasible : bool
        Whether every bound holds at that rate as it is served (see `sustained`); else requests go
        first and nothing runs between.
    """

    mode: PowerMode
    batch_size: int
    other: Job | None
    rate_hz: float
    feasible: bool


class WindowController:
    """Plans for the rate of a sliding window, and anew when the rate leaves a band.

    A plan holds from the rate it was made for down to a band below it. All that was ever measured
    is looked up; a few more modes are probed only for rates near which no search found a plan.

    Parameters
    ----------
    problem : InferAlone, Concurrent or TwoInferences
        Its rate is the one expected before any request has come.
    candidates : Candidates
        Modes to choose from.
    measure : callable
        From a mode and a job to seconds and watts.
    solver : Solver
    reaction : Reaction
    known : Record, optional
        What was measured before.
    start_s : float
        The time now.

    Attributes
    ----------
    present : ServingPlan
        In force now.
    solves : int
        How often a plan was made.

    Raises
    ------
    Infeasible
        If nothing is measured that could serve even without limits, because `first_cap` is small.
    """

    def __init__(
        self,
        problem: Serving,
        candidates: Candidates,
        measure: Measure,
        solver: Solver,
        *,
        reaction: Reaction | None = None,
        known: Record | None = None,
        start_s: float = 0.0,
    ) -> None:
        self.problem = problem
        self.reaction = reaction or Reaction()
        self.solves = 0
        self._candidates = candidates
        self._measure = measure
        self._solver = solver
        self._record = known
        self._profiled: set[int] = set()
        self._start_s = start_s
        self._arrivals: deque[float] = deque()
        self._solved_hz: list[float] = []  # rates that a search found a plan for
        self._hopeful = True  # whether the last search measured anything new
        self._quick_hz: deque[tuple[float, float]] = deque()  # when, and the rate then
        self.present: ServingPlan = self._plan(problem.rate_hz, self.reaction.first_cap, None)

    @property
    def profiled(self) -> int:
        """Distinct modes that were measured for all plans."""
        return len(self._profiled)

    @property
    def record(self) -> Record | None:
        """All that is measured so far, for another controller or search to start from."""
        return self._record

    def arrived(self, now_s: float) -> None:
        """A request came; times never fall."""
        self._arrivals.append(now_s)

    def decide(self, now_s: float) -> ServingPlan:
        """What should be in force from now on."""
        needed_hz = self._needed_hz(now_s)
        if needed_hz is None and self._hopeful and not self.present.feasible:
            needed_hz = self.present.rate_hz
        if needed_hz is not None:
            self.present = self._plan(needed_hz, self.reaction.probes, self.present)
        return self.present

    def _needed_hz(self, now_s: float) -> float | None:
        """The rate to plan for; None if the present plan is good for it."""
        reaction, planned_hz = self.reaction, self.present.rate_hz
        while self._arrivals and self._arrivals[0] <= now_s - reaction.window_s:
            self._arrivals.popleft()
        # Of a window that began before the start, the expected rate stands for the missing part.
        missing_s = max(reaction.window_s - (now_s - self._start_s), 0.0)
        count = len(self._arrivals) + missing_s * self.problem.rate_hz
        high_hz = float(gammaincinv(count + 1, reaction.quantile)) / reaction.window_s
        recent = sum(1 for time_s in self._arrivals if time_s > now_s - reaction.quick_s)
        self._remember(now_s, recent / reaction.quick_s)
        surely = float(gammaincinv(recent, 1 - reaction.alarm)) if recent else 0.0
        needed_hz = max(high_hz, recent / reaction.quick_s, lowest_rate_hz(self.problem))
        rises = max(count / reaction.window_s, surely / reaction.quick_s) > planned_hz
        return needed_hz if rises or needed_hz < (1 - reaction.band) * planned_hz else None

    def _remember(self, now_s: float, quick_hz: float) -> None:
        """Keep the rates that no later one exceeds, the highest first."""
        while self._quick_hz and self._quick_hz[-1][1] <= quick_hz:
            self._quick_hz.pop()
        self._quick_hz.append((now_s, quick_hz))
        while self._quick_hz[0][0] < now_s - self.reaction.memory_s:
            self._quick_hz.popleft()

    def _plan(self, rate_hz: float, cap: int, present: ServingPlan | None) -> ServingPlan:
        problem, near = at_rate(self.problem, rate_hz), self.reaction.band / 2
        if any(abs(problem.rate_hz / other_hz - 1) <= near for other_hz in self._solved_hz):
            cap = 0
        faster = at_rate(problem, problem.rate_hz / (1 - _LEAST_SHARE))
        search = Search(faster, self._candidates, self._measure, cap, self._record)
        if cap:
            self._solver.solve(search)
        self.solves += 1
        self._hopeful = bool(search.profiled)
        self._keep(search)
        decision = self._completed(problem, present)
        if cap and decision.feasible:
            self._solved_hz.append(problem.rate_hz)
        return decision

    def _completed(self, problem: Serving, present: ServingPlan | None) -> ServingPlan:
        """Decide; measure what is missing of the mode decided on, and decide anew, until all is.

        The solver measures the batch sizes that its own problem needs; when requests come faster
        than was planned for, a larger one that was not measured could not be changed to.
        """
        every = with_every_batch(problem)
        while True:
            assert self._record is not None
            decision = best_plan(
                problem,
                self._candidates,
                self._record,
                peak_hz=self._quick_hz[0][1] if self._quick_hz else 0.0,
                present=present,
                gain=self.reaction.gain,
            )
            search = Search(every, self._candidates, self._measure, 1, self._record)
            search.profile(self._candidates.index(decision.mode))
            if not search.order:
                return decision
            self._keep(search)

    def _keep(self, search: Search) -> None:
        self._record = search.record
        self._profiled.update(search.profiled)


def at_rate(problem: Serving, rate_hz: float) -> Serving:
    """The problem at another rate; at the lowest that makes sense for it, if that is higher."""
    return replace(problem, rate_hz=max(rate_hz, lowest_rate_hz(problem)))


def lowest_rate_hz(problem: Serving) -> float:
    """Rate at which the smallest batch fills in half of the latency budget.

    Below, batches do not fill: they run when the oldest request can wait no longer, and a plan
    for this rate serves them, with room to spare.
    """
    return 2 * problem.batch_sizes[0] / problem.latency_s


def best_plan(
    problem: Serving,
    candidates: Candidates,
    record: Record,
    *,
    peak_hz: float = 0.0,
    present: ServingPlan | None = None,
    gain: float = 0.0,
) -> ServingPlan:
    """What to put in force, of all that is measured.

    Parameters
    ----------
    problem : InferAlone, Concurrent or TwoInferences
    candidates : Candidates
    record : Record
        What is measured.
    peak_hz : float
        A rate to keep up with while the other job yields, nearly, or as nearly as any plan does.
    present : ServingPlan, optional
        What is in force; its mode is kept if it is feasible and loses less than `gain`.
    gain : float
        Relative.
    """
    every = with_every_batch(problem)
    known = Search(every, candidates, _nothing_more, 0, record)
    found = sustained(problem, every, known.time_s, known.power_w)
    infer = [choice[-1] for choice in every.choices]
    sizes = np.array([every.jobs[index].batch_size for index in infer], dtype=np.float64)
    speed_hz = np.where(found.feasible, sizes / known.time_s[:, infer], 0.0)
    enough_hz = min(peak_hz, float(speed_hz.max(initial=0.0))) * (1 - _LEAST_SHARE)
    found = found._replace(feasible=found.feasible & (speed_hz >= enough_hz))
    best = best_of(found)
    if best is None:
        return _requests_first(problem, known)
    if present is not None:
        kept = candidates.index(present.mode)
        loss = np.where(found.feasible[kept], found.loss[kept], np.inf)
        if problem.shortfall(float(loss.min()), float(found.loss[best])) < gain:
            best = kept, int(loss.argmin())
    mode, choice = best
    other = every.jobs[every.choices[choice][0]]
    return ServingPlan(
        mode=candidates.mode(mode),
        batch_size=every.chosen_sizes(choice)["infer"],
        other=None if other.role == "infer" else other,
        rate_hz=problem.rate_hz,
        feasible=True,
    )


def sustained(
    problem: Serving, every: Serving, time_s: FloatArray, power_w: FloatArray
) -> Assessment:
    """Judge choices as they are served: between batches the other job runs back to back.

    A cycle of the problem is a full batch and whole minibatches. Served, a batch that does not
    fill in time runs with what there is: one starts every T = min(b/a, W + 1/a), W being what
    its oldest request can wait, L - t_i - t_other. And a minibatch of the other job may run across
    the end of a cycle, so that it gets all of the share 1 - t_i/T of the time. The bounds are
    the power, that a request which finds any minibatch running is still in time, and a least
    share. Inference alone is best with the least T + t_i. A bound of the energy of a cycle means
    the cycle: then the problem's own judgement stands.

    Parameters
    ----------
    problem : InferAlone, Concurrent or TwoInferences
        With the rate.
    every : InferAlone, Concurrent or TwoInferences
        The same with all batch sizes among its choices.
    time_s, power_w : FloatArray, shape (n_modes, n_jobs of every)
        NaN where not measured.

    Returns
    -------
    Evaluation
        Of the choices of `every`, shape (n_modes, n_choices).
    """
    if every is problem:
        return problem.evaluate(time_s, power_w)
    choices = np.array(every.choices, dtype=np.int64)
    other, infer = choices[:, 0], choices[:, -1]
    sizes = np.array([job.batch_size or 1 for job in every.jobs])
    infer_s = time_s[:, infer]
    other_s = np.zeros_like(infer_s) if isinstance(problem, InferAlone) else time_s[:, other]
    waits_s = problem.latency_s - infer_s - other_s
    every_s = np.minimum(sizes[infer], waits_s * problem.rate_hz + 1) / problem.rate_hz
    share = 1 - infer_s / np.maximum(every_s, infer_s)
    power = np.maximum(power_w[:, infer], power_w[:, other])
    in_time = infer_s + np.maximum(infer_s, other_s) <= problem.latency_s
    kept = in_time & (share >= _LEAST_SHARE) & (power <= problem.power_limit_w)
    if isinstance(problem, InferAlone):
        loss = np.log(every_s + infer_s, where=in_time, out=np.full_like(infer_s, np.nan))
    else:
        unit = sizes[other] if isinstance(problem, TwoInferences) else 1
        loss = np.log(other_s / (np.maximum(share, _LEAST_SHARE) * unit))
    if isinstance(problem, TwoInferences):
        kept &= infer_s + other_s <= problem.background_latency_s
    return Assessment(kept, loss, np.where(kept, 0.0, np.nan), power)


def with_every_batch(problem: Serving) -> Serving:
    """The problem with all batch sizes to choose from; itself where its cycle is bounded."""
    if math.isfinite(problem.energy_limit_j):
        return problem
    return replace(problem, rate_hz=math.inf)


def _nothing_more(mode: PowerMode, job: Job) -> tuple[float, float]:
    raise AssertionError("a look-up measures nothing")


def _requests_first(problem: Serving, known: Search) -> ServingPlan:
    """Nothing is feasible: the most requests a second within the power limit, alone.

    Of batches short enough that a request may find one running. With none within the limit, the
    batch of least power.
    """
    jobs = [index for index, job in enumerate(known.problem.jobs) if job.role == "infer"]
    sizes = np.array([known.problem.jobs[index].batch_size for index in jobs], dtype=np.float64)
    time_s, power_w = known.time_s[:, jobs], known.power_w[:, jobs]
    measured = np.isfinite(time_s)
    if not measured.any():
        raise Infeasible(
            f"no batch of {problem.describe()} is measured; measure more modes, or allow "
            "smaller batches"
        )
    usable = measured & (2 * time_s <= problem.latency_s) & (power_w <= problem.power_limit_w)
    speed = np.where(usable, sizes / time_s, -np.inf)
    coolest = np.where(measured, power_w, np.inf).argmin()
    flat = speed.argmax() if usable.any() else coolest
    mode, column = np.unravel_index(flat, time_s.shape)
    return ServingPlan(
        known.candidates.mode(int(mode)), int(sizes[column]), None, problem.rate_hz, False
    )
