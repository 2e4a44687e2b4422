"""How well plans serve a trace of arrivals, on measured tables: the controller and its rivals.

The server runs one job at a time and changes only between minibatches. A batch runs when it is
full, or with what there is when its oldest request can wait no longer for a minibatch of the
other job; in between the other job runs. Times and powers are those of the tables. A batch that is
not full is padded and costs as much as a full one, of which the plan knows time and power.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.controller import Reaction, Serving, ServingPlan, at_rate, best_plan
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay

_TOLERANCE_S = 1e-9


class Planner(Protocol):
    """Says what should be in force; `WindowController` is one."""

    def arrived(self, now_s: float) -> None:
        """A request came."""

    def decide(self, now_s: float) -> ServingPlan:
        """What should be in force from now on."""
        ...


@dataclass(frozen=True)
class Static:
    """One decision for all of the trace."""

    decision: ServingPlan

    def arrived(self, now_s: float) -> None:
        """Of no interest."""

    def decide(self, now_s: float) -> ServingPlan:
        """The same as ever."""
        return self.decision


class Oracle:
    """Knows the tables, and how many requests the window that begins will have.

    Parameters
    ----------
    problem : InferAlone, Concurrent or TwoInferences
    replay : Replay
        Solved by brute force.
    arrivals : sequence of float
        All of the trace, ascending.
    reaction : Reaction
        A decision holds for its window, and keeps up with the short windows in it.
    """

    def __init__(
        self, problem: Serving, replay: Replay, arrivals: Sequence[float], reaction: Reaction
    ) -> None:
        self._problem = problem
        self._replay = replay
        self._arrivals = arrivals
        self._window_s = reaction.window_s
        self._quick_s = reaction.quick_s
        self._number = -1
        self._present: ServingPlan | None = None
        self.solves = 0

    def arrived(self, now_s: float) -> None:
        """It knew."""

    def decide(self, now_s: float) -> ServingPlan:
        """The best for the window that holds now."""
        number = int(now_s / self._window_s)
        if self._present is None or number != self._number:
            begin_s = number * self._window_s
            ends = (begin_s, begin_s + self._window_s)
            first, last = (bisect_left(self._arrivals, end_s) for end_s in ends)
            coming = np.array(self._arrivals[first:last]) - begin_s
            peak_hz = np.bincount((coming / self._quick_s).astype(int), minlength=1).max()
            problem = at_rate(self._problem, (last - first) / self._window_s)
            self._present = optimum(problem, self._replay, float(peak_hz) / self._quick_s)
            self._number = number
            self.solves += 1
        return self._present


def optimum(problem: Serving, replay: Replay, peak_hz: float = 0.0) -> ServingPlan:
    """By brute force over a replay, the best plan; one that keeps up with a peak, if any does."""
    return best_plan(problem, replay.candidates, replay.record, peak_hz=peak_hz)


@dataclass(frozen=True)
class Served:
    """What became of a trace.

    Attributes
    ----------
    requests, late : int
        How many there were, and how many took longer than the latency budget.
    p99_latency_s : float
        Of the requests.
    switches : int
        Changes of mode.
    other_minibatches : int
        Of training, or of the background.
    over_power_s : float
        Time in which a job drew more than the limit.
    busy_s, duration_s : float
        Time in which a job ran, and all of the time.
    energy_j : float
        Of the jobs; waiting and changes of mode are left out.
    """

    requests: int
    late: int
    p99_latency_s: float
    switches: int
    other_minibatches: int
    over_power_s: float
    busy_s: float
    duration_s: float
    energy_j: float

    @property
    def late_pct(self) -> float:
        """Requests that were too late."""
        return 100 * self.late / self.requests

    @property
    def other_rate_hz(self) -> float:
        """Minibatches a second of training, or of the background."""
        return self.other_minibatches / self.duration_s


def serve(
    arrivals: Sequence[float],
    planner: Planner,
    replay: Replay,
    problem: Serving,
    *,
    period_s: float = 1.0,
    switch_s: float = 0.2,
) -> Served:
    """Serve a trace to its last request.

    Parameters
    ----------
    arrivals : sequence of float
        Ascending seconds from 0 on.
    planner : Planner
        Asked every `period_s`, at the end of the running minibatch.
    replay : Replay
        What minibatches cost.
    problem : InferAlone, Concurrent or TwoInferences
        Its latency and power limits are the bounds that are counted.
    period_s, switch_s : float
        Between two questions to the planner; and what a change of mode takes (an assumption, as
        in `powerctl.devices.twin.Variation`), in which nothing runs.
    """
    if not len(arrivals):
        raise InvalidInput("a trace needs at least one request")
    server = _Server(list(arrivals), planner, replay, problem, period_s, switch_s)
    while server.served < len(arrivals):
        server.advance()
    return server.summary()


class _Force(NamedTuple):
    """A decision in force, and seconds and watts of its batch and of its other job."""

    decision: ServingPlan
    infer: tuple[float, float]
    other: tuple[float, float] | None

    @classmethod
    def of(cls, decision: ServingPlan, replay: Replay) -> _Force:
        mode, other = decision.mode, decision.other
        infer = replay.measure(mode, Job("infer", decision.batch_size))
        return cls(decision, infer, None if other is None else replay.measure(mode, other))


class _Server:
    """The clock, the queue and the counters of one trace."""

    def __init__(
        self,
        arrivals: list[float],
        planner: Planner,
        replay: Replay,
        problem: Serving,
        period_s: float,
        switch_s: float,
    ) -> None:
        self.arrivals = arrivals
        self.planner = planner
        self.replay = replay
        self.problem = problem
        self.period_s = period_s
        self.switch_s = switch_s
        self.now_s = 0.0
        self.served = 0
        self.switches = self.others = 0
        self.over_power_s = self.busy_s = self.energy_j = 0.0
        self._finished: list[tuple[float, int]] = []
        self._told = 0
        self._forces: dict[ServingPlan, _Force] = {}
        self._next_s = period_s
        self.force = self._force_of(planner.decide(0.0))

    def advance(self) -> None:
        """To the end of the next batch, or to the time of the next decision."""
        if self.now_s >= self._next_s:
            self._decide()
        starts_s = self._wait() if self.force.other is None else self._fill(*self.force.other)
        if starts_s is not None:
            self.now_s = starts_s
            self._run_batch()

    def summary(self) -> Served:
        """Judge all requests."""
        ends_s, counts = (np.array(column) for column in zip(*self._finished, strict=True))
        latency_s = np.repeat(ends_s, counts.astype(np.int64)) - np.array(self.arrivals)
        return Served(
            requests=len(latency_s),
            late=int((latency_s > self.problem.latency_s + _TOLERANCE_S).sum()),
            p99_latency_s=float(np.percentile(latency_s, 99)),
            switches=self.switches,
            other_minibatches=self.others,
            over_power_s=self.over_power_s,
            busy_s=self.busy_s,
            duration_s=self.now_s,
            energy_j=self.energy_j,
        )

    def _decide(self) -> None:
        upto = bisect_right(self.arrivals, self.now_s, lo=self._told)
        for time_s in self.arrivals[self._told : upto]:
            self.planner.arrived(time_s)
        self._told = upto
        before, self.force = self.force, self._force_of(self.planner.decide(self.now_s))
        if self.force.decision.mode != before.decision.mode:
            self.switches += 1
            self.now_s += self.switch_s
        self._next_s = self.now_s + self.period_s

    def _bounds(self) -> tuple[float, float, float]:
        """When the oldest request came, when its batch is full, and when it must start at last."""
        size = self.force.decision.batch_size
        last = self.served + size - 1
        oldest_s = self.arrivals[self.served]
        full_s = self.arrivals[last] if last < len(self.arrivals) else math.inf
        return oldest_s, full_s, oldest_s + self.problem.latency_s - self.force.infer[0]

    def _wait(self) -> float | None:
        """Idle to the start of the next batch; None if a decision is due before."""
        oldest_s, full_s, latest_s = self._bounds()
        starts_s = max(self.now_s, oldest_s, min(full_s, latest_s))
        if starts_s <= self._next_s:
            return starts_s
        self.now_s = self._next_s
        return None

    def _fill(self, time_s: float, power_w: float) -> float | None:
        """Run the other job to the start of the next batch, or until a decision is due."""
        oldest_s, full_s, latest_s = self._bounds()
        until_full = math.inf if math.isinf(full_s) else math.ceil((full_s - self.now_s) / time_s)
        until_come = math.ceil((oldest_s - self.now_s) / time_s)
        until_late = math.floor((latest_s - self.now_s) / time_s)  # one more would end too late
        count = max(0, min(until_full, max(until_come, until_late)))
        until_next = max(1, math.ceil((self._next_s - self.now_s) / time_s))
        is_first = until_next < count
        runs = int(min(count, until_next))
        self.others += runs
        self._account(runs * time_s, power_w)
        return None if is_first else self.now_s

    def _run_batch(self) -> None:
        first, size = self.served, self.force.decision.batch_size
        most = min(first + size, len(self.arrivals))
        count = max(bisect_right(self.arrivals, self.now_s, lo=first, hi=most) - first, 1)
        self._account(*self.force.infer)
        self._finished.append((self.now_s, count))
        self.served += count

    def _account(self, seconds: float, power_w: float) -> None:
        self.now_s += seconds
        self.busy_s += seconds
        self.energy_j += seconds * power_w
        if power_w > self.problem.power_limit_w:
            self.over_power_s += seconds

    def _force_of(self, decision: ServingPlan) -> _Force:
        if decision not in self._forces:
            self._forces[decision] = _Force.of(decision, self.replay)
        return self._forces[decision]
