"""The queue of one inference service: requests by deadline, and how many more to expect."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from powerctl.errors import InvalidInput
from powerctl.fulcrum.arrival_rate import JoiningRate
from powerctl.fulcrum.durations import LearnedTimes
from powerctl.fulcrum.turns import InferenceService, Request

_USUAL_DEVIATIONS = 3.0  # above the mean, a gap is still usual
_PRIOR_GAPS = 16  # what the planned rate is worth, in observed gaps between arrivals
_SLOWEST_GAIN = 1 / 64
_ROUNDING = 1e-9  # of a request


class Queued(NamedTuple):
    """A request that waits; ordered by deadline, then by arrival."""

    deadline_s: float
    number: int
    request: Request


class Demand(NamedTuple):
    """A batch to be run: by when, and how long it takes."""

    deadline_s: float
    time_s: float


class _Gaps(NamedTuple):
    """Mean of the gaps between arrivals, and of their squares."""

    mean_s: float
    square: float


class ArrivalRate:
    """How fast requests come, and how irregularly: mean and dispersion of the gaps, learned.

    Dispersion is the squared coefficient of variation of the gaps: 0 for constant arrivals, 1 for
    Poisson (assumed to begin with), above 1 for bursts. A gap that is not over yet counts once it
    is longer than usual: where requests cease to come, what is expected of them fades.
    """

    def __init__(self, rate_hz: float) -> None:
        gap_s = 1 / rate_hz if rate_hz else math.inf
        self._over = self._now = _Gaps(gap_s, 2 * gap_s**2)
        self._weight = _PRIOR_GAPS if rate_hz else 0
        self._count = 0
        self._last_s = math.nan

    @property
    def rate_hz(self) -> float:
        """Arrivals in a second; infinite if all came at one instant."""
        return 1 / self._now.mean_s if self._now.mean_s else math.inf

    @property
    def dispersion(self) -> float:
        """Squared coefficient of variation of the gaps."""
        mean_s, square = self._now
        return max(square / mean_s**2 - 1, 0.0) if 0 < mean_s < math.inf else 1.0

    def arrived(self, now_s: float) -> None:
        """A request came."""
        gap_s, self._last_s = now_s - self._last_s, now_s
        if gap_s >= 0:  # not the first
            self._over = self._now = self._with(gap_s)
            self._count += 1

    def seen(self, now_s: float) -> None:
        """No other has come by now."""
        gap_s, self._now = now_s - self._last_s, self._over
        usual = 1 + _USUAL_DEVIATIONS * math.sqrt(self.dispersion)
        if gap_s > usual * self._over.mean_s:
            self._now = self._with(gap_s)

    def _with(self, gap_s: float) -> _Gaps:
        mean_s, square = self._over
        if math.isinf(mean_s):
            return _Gaps(gap_s, 2 * gap_s**2)
        gain = max(1 / (self._weight + self._count + 1), _SLOWEST_GAIN)
        return _Gaps(mean_s + gain * (gap_s - mean_s), square + gain * (gap_s**2 - square))

    def most(self, time_s: float, deviations: float) -> float:
        """Upper bound of the arrivals in some time, at least 1: mean plus some deviations."""
        mean = self.rate_hz * time_s
        if math.isinf(deviations) or math.isinf(mean):
            return math.inf
        return math.floor(mean + deviations * math.sqrt(self.dispersion * mean) + _ROUNDING) + 1

    def earliest_s(self, number: int, deviations: float) -> float:
        """Seconds in which `most` grows beyond a number: the next arrival but so many."""
        if not number or math.isinf(deviations) or not self._now.mean_s:
            return 0.0
        spread = deviations * math.sqrt(self.dispersion)
        root = (math.sqrt(spread**2 + 4 * number) - spread) / 2
        return root**2 * self._now.mean_s


class ServiceQueue:
    """What waits for one service, and the times of its batches.

    Attributes
    ----------
    queue : list of Queued
        Requests that can still be met, the earliest deadline first.
    late : list of Queued
        Requests that cannot, and will be answered late (policy ``"serve"``).
    """

    def __init__(self, service: InferenceService, times: LearnedTimes) -> None:
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

    def replan(self, service: InferenceService) -> None:
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
        """Queue a request."""
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
