"""What waits for the device: the requests of an inference service, and training jobs."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.arrival_rate import ArrivalRate, JoiningRate
from powerctl.fulcrum.durations import LearnedTimes
from powerctl.fulcrum.turns import Request, ServiceSpec


class Queued(NamedTuple):
    """A request that waits; ordered by deadline, then by arrival."""

    deadline_s: float
    number: int
    request: Request


class Demand(NamedTuple):
    """A batch to be run: by when, and how long it takes."""

    deadline_s: float
    time_s: float


class ServiceQueue:
    """What waits for one service, and the times of its batches.

    Attributes
    ----------
    queue : list of Queued
        Requests that can still be met, the earliest deadline first.
    late : list of Queued
        Requests that cannot, and will be answered late (policy ``"serve"``).
    """

    def __init__(self, service: ServiceSpec, times: LearnedTimes) -> None:
        self.service = service
        self.times = times
        self.arrivals = ArrivalRate(service.rate_hz)
        self.joining = JoiningRate(service.rate_hz)
        self.queue: list[Queued] = []
        self.late: list[Queued] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self.queue) + len(self.late)

    @property
    def largest(self) -> int:
        """The largest batch there may be."""
        return self.times.largest

    @property
    def is_full(self) -> bool:
        """Whether the planned batch has filled."""
        return len(self.queue) >= self.service.batch_size

    @property
    def has_room(self) -> bool:
        """Whether one more request may be queued."""
        return len(self) < self.service.capacity

    @property
    def share(self) -> float:
        """Of the device's time, what the service needs at the planned batch size."""
        size = self.service.batch_size
        rate_hz = self.arrivals.rate_hz
        return rate_hz * self.times.expected_s(size) / size if rate_hz else 0.0

    def joins(self, now_s: float, until_s: float) -> float:
        """How many more requests are expected by then while those queued wait."""
        rate_hz = self.joining.rate_hz(now_s)
        return rate_hz * max(until_s - now_s, 0.0) if rate_hz else 0.0

    def replan(self, service: ServiceSpec) -> None:
        """Another plan for the service; a new planned rate replaces what was observed."""
        if service.rate_hz != self.service.rate_hz:
            self.arrivals = ArrivalRate(service.rate_hz)
            self.joining = JoiningRate(service.rate_hz)
        self.service = service
        self.times.replan(service.time_s)

    def check(self, request: Request, deadline_s: float) -> None:
        """Raise `InvalidInput` for a deadline that is not a number."""
        if math.isnan(deadline_s):
            raise InvalidInput(f"{self.service.name}: the deadline of {request!r} is not a number")

    def add(self, request: Request, deadline_s: float) -> None:
        """Queue a request by its deadline."""
        insort(self.queue, Queued(deadline_s, next(self._numbers), request))

    def remove(self, request: Request) -> bool:
        """Take a request out of the queue; False if it is not there."""
        for waiting in (self.queue, self.late):
            for at, queued in enumerate(waiting):
                if queued.request == request:
                    del waiting[at]
                    return True
        return False

    def take_hopeless(self, now_s: float) -> list[Queued]:
        """Take out the requests that even a batch of one, begun now, would answer late."""
        limit_s = now_s + self.times.expected_s(1)
        at = 0
        while at < len(self.queue) and exceeds(limit_s, self.queue[at].deadline_s):
            at += 1
        hopeless, self.queue[:at] = self.queue[:at], []
        return hopeless

    def take(self, first: int, size: int, late: int = 0) -> list[Queued]:
        """Take a batch out: `size` requests from the `first` on, and some of the late ones."""
        batch = self.queue[first : first + size] + self.late[:late]
        del self.queue[first : first + size]
        del self.late[:late]
        return batch

    def batches(self, within_s: float) -> list[int]:
        """Sizes of a batch to run, the least time per request first; the larger of equals.

        The largest there may be within a time, the planned size, and those whose time is known:
        time may jump between them, where another kernel is chosen. Where the planned size has
        filled, none below it.
        """
        planned = self.service.batch_size
        most = self.times.largest_within(within_s, len(self.queue))
        least = planned if most >= planned else 1
        sizes = {most, planned, *self.times.sizes}
        fitting = [size for size in sizes if least <= size <= most]
        return sorted(fitting, key=lambda size: (self.times.safe_s(size) / size, -size))

    def demands(
        self, now_s: float, end_s: float, first: int, more: int, deviations: float
    ) -> list[Demand] | None:
        """What is to run from an end on, so that all requests are met.

        Parameters
        ----------
        now_s, end_s : float
            Of the turn that comes before.
        first : int
            The requests queued count from this one on.
        more : int
            So many come during the turn, as early as `deviations` let them.
        deviations : float
            See `ArrivalRate.earliest_s`.

        Returns
        -------
        list of Demand, or None
            Batches of one size that meet all, of the first such size tried. None if there is none.
        """
        waiting = len(self.queue) - first
        together = waiting + more
        if not together:
            return []

        next_s = now_s + self.service.latency_s if more else math.inf

        def deadline_s(at: int) -> float:
            if at < waiting:  # one batch may hold this and what comes next
                return min(self.queue[first + at].deadline_s, next_s)
            return next_s + self.arrivals.earliest_s(at - waiting, deviations)

        for size in self._divisions(waiting, together, deadline_s(0) - end_s):
            demands, start_s = [], end_s
            for at in range(0, together, size):
                demand = Demand(deadline_s(at), self.times.safe_s(min(size, together - at)))
                start_s += demand.time_s
                if exceeds(start_s, demand.deadline_s):
                    break
                demands.append(demand)
            else:
                return demands
        return None

    def _divisions(self, waiting: int, together: int, within_s: float) -> Iterator[int]:
        """Batch sizes to try: the largest that meets the head, and what is natural below it.

        More than one batch must be of a size that keeps up with the arrivals, if the planned one
        does: all would be met, but more slowly than requests come, and those after them missed.
        """
        most = self.times.largest_within(within_s, together)
        if not most:
            return
        if most == together:
            yield most
            return
        known = max((size for size in self.times.sizes if size < most), default=0)
        below = {known, waiting, self.service.batch_size}
        sizes = [most, *(size for size in sorted(below, reverse=True) if 0 < size < most)]
        busy = not self._keeps_up(self.service.batch_size)
        yield from (size for size in sizes if busy or self._keeps_up(size))

    def _keeps_up(self, size: int) -> bool:
        """Whether batches of a size take requests as fast as they come."""
        return self.arrivals.rate_hz * self.times.expected_s(size) <= size

    def reserve(self, time_s: float, deviations: float) -> int:
        """Requests to provide for that may come in some time; none if they can wait for ever."""
        if math.isinf(self.service.latency_s):
            return 0
        most = self.arrivals.most(time_s, deviations)
        return self.largest if math.isinf(most) else int(min(most, self.service.capacity))


def exceeds(time_s: float, deadline_s: float) -> bool:
    """Whether a time is past a deadline, to a nanosecond: less is rounding."""
    return time_s > deadline_s + 1e-9


class TrainingJobs:
    """The training jobs of an interleaver, their times, and fairness among them."""

    def __init__(self) -> None:
        self._times: dict[str, LearnedTimes] = {}
        self._had_s: dict[str, float] = {}  # device time, for fairness
        self._wanted: dict[str, None] = {}  # a set that keeps its order

    def __contains__(self, name: str) -> bool:
        return name in self._times

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all training jobs."""
        return tuple(self._times)

    def times(self, name: str) -> LearnedTimes:
        """The times of a job; raises `UnknownName`."""
        if name not in self._times:
            raise UnknownName("training job", name, self._times)
        return self._times[name]

    def add(self, name: str, times: LearnedTimes) -> None:
        """Take in a job; it wants nothing yet."""
        self._times[name] = times
        self._had_s[name] = 0.0

    def remove(self, name: str) -> None:
        """Forget a job, if it is one."""
        for known in (self._times, self._had_s, self._wanted):
            known.pop(name, None)

    def want(self, name: str, wanted: bool) -> None:
        """Whether a job has a minibatch to run."""
        self.times(name)
        if not wanted:
            self._wanted.pop(name, None)
        elif name not in self._wanted:
            # who comes back does not make up for the time in which it wanted nothing
            floor_s = min((self._had_s[other] for other in self._wanted), default=0.0)
            self._had_s[name] = max(self._had_s[name], floor_s)
            self._wanted[name] = None

    def wanting(self) -> list[str]:
        """The jobs that want a turn, the one that has had least time first."""
        return sorted(self._wanted, key=self._had_s.__getitem__)

    def had(self, name: str, time_s: float) -> None:
        """A job has had the device."""
        self._had_s[name] += time_s
