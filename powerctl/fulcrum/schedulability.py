"""Schedulability: whether queued requests can all be met after a turn; else, what can be saved.

One machine that runs one batch at a time and is never interrupted: of batches that are all there,
the order by deadline meets all deadlines if any order does (Jackson 1955).

======  =======================================================  ====  ==========================
symbol  meaning                                                  unit  here
======  =======================================================  ====  ==========================
a       when the first of the batches begins                     s     `start_s`
d_j     deadline of batch j, d_1 <= d_2 <= ...                   s     `Demand.deadline_s`
c_j     how long it takes                                        s     `Demand.time_s`
u       share of the device that more urgent services take       1     `ServiceQueue.share`, added
======  =======================================================  ====  ==========================

All are met where a + c_1 + ... + c_j <= d_j for every j; so the latest start is L_1, of
L_j = min(d_j, L_(j+1)) - c_j. A service that more urgent ones interrupt has c / (1 - u) for c.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from powerctl.fulcrum.queueing import Demand, ServiceQueue, exceeds

_MOST_SHARE = 0.9  # u at most: where services fill the device, c / (1 - u) is at most ten times c


class Schedulability:
    """The queues of all services, looked at together.

    Parameters
    ----------
    queues : mapping of str to ServiceQueue
        By service; may change.
    deviations : float
        Standard deviations of the number of arrivals to provide for during a turn; infinite for
        the largest batch.
    """

    def __init__(self, queues: Mapping[str, ServiceQueue], deviations: float) -> None:
        self._queues = queues
        self._deviations = deviations

    def by_deadline(self) -> list[ServiceQueue]:
        """The services with something queued, the earliest deadline first."""
        waiting = [queue for queue in self._queues.values() if queue.queue]
        return sorted(waiting, key=lambda queue: queue.queue[0].deadline_s)

    def is_safe(
        self,
        now_s: float,
        end_s: float,
        taken: ServiceQueue | None = None,
        size: int = 0,
        *,
        arrivals: bool = True,
        empty: bool = False,
    ) -> bool:
        """Whether all is met after a turn from now to an end.

        Parameters
        ----------
        now_s, end_s : float
            Of the turn.
        taken : ServiceQueue, optional
            The queue that the turn takes the first `size` requests from.
        size : int
            See `taken`.
        arrivals : bool
            Whether to provide for requests that come meanwhile, or only for those queued.
        empty : bool
            Whether to look away from those queued.
        """
        demands: list[Demand] = []
        for queue in self._queues.values():
            first = len(queue.queue) if empty else size if queue is taken else 0
            more = queue.reserve(end_s - now_s, self._deviations) if arrivals else 0
            own = queue.demands(now_s, end_s, first, more, self._deviations)
            if own is None:
                return False
            demands += own
        return len(self._queues) == 1 or all_met(demands, end_s)

    def latest_start_s(self) -> float:
        """When the queued requests must begin, one more of each service counted in.

        Services whose budget is longer are interrupted by those whose budget is shorter, and
        count with that much more time.
        """
        demands: list[Demand] = []
        urgent_share = 0.0
        for queue in sorted(self._queues.values(), key=lambda q: q.service.latency_s):
            slowed = 1 / (1 - min(urgent_share, _MOST_SHARE))
            urgent_share += queue.share
            for at in range(0, len(queue.queue), queue.largest):
                size = min(len(queue.queue) - at + 1, queue.largest)
                time_s = slowed * queue.times.safe_s(size)
                demands.append(Demand(queue.queue[at].deadline_s, time_s))
        return latest_start_s(demands) if demands else math.inf


def all_met(demands: list[Demand], start_s: float) -> bool:
    """Whether batches begun at a time, one after another by deadline, all end in time."""
    end_s = start_s
    for deadline_s, time_s in sorted(demands):
        end_s += time_s
        if exceeds(end_s, deadline_s):
            return False
    return True


def latest_start_s(demands: list[Demand]) -> float:
    """The last moment at which `all_met` holds; infinite without a deadline."""
    start_s = math.inf
    for deadline_s, time_s in sorted(demands, reverse=True):
        start_s = min(deadline_s, start_s) - time_s
    return start_s


def save_most(
    now_s: float,
    deadlines_s: Sequence[float],
    time_s: Callable[[int], float],
    sizes: Sequence[int],
) -> tuple[int, int]:
    """The batch to run now when not all of a queue can be met: as many as possible in the end.

    With the most urgent request so late that only a small batch still meets it, serving it costs
    the throughput of a large batch. So besides a batch from the head on, batches are tried that
    leave out as many heads as a batch of each of `sizes` demands; each is followed to the end of
    the queue (always the largest batch that meets its first request), and the one wins that
    answers most in time.

    Parameters
    ----------
    now_s : float
        The present.
    deadlines_s : sequence of float
        Of the queue, ascending.
    time_s : callable
        Seconds of a batch of a size.
    sizes : sequence of int
        Batch sizes to make room for, the last being the largest batch there may be.

    Returns
    -------
    first, size : int
        Index of the first request of the batch, and how many. At least one: if none can be met,
        the head alone.
    """
    firsts = {bisect_left(deadlines_s, now_s + time_s(size) - 1e-9) for size in (1, *sizes)}
    best, best_saved = (0, 1), 0
    for first in sorted(firsts):
        size = largest_met(now_s, deadlines_s, first, time_s, sizes[-1])
        saved, end_s, at = size, now_s + time_s(size), first + size
        while at < len(deadlines_s):
            met = largest_met(end_s, deadlines_s, at, time_s, sizes[-1])
            saved, end_s, at = saved + met, end_s + time_s(met), at + max(met, 1)
        if saved > best_saved and size:
            best, best_saved = (first, size), saved
    return best


def largest_met(
    now_s: float,
    deadlines_s: Sequence[float],
    first: int,
    time_s: Callable[[int], float],
    largest: int,
) -> int:
    """Size of the largest batch from a request on that meets it when begun now; 0 if none does."""
    size = min(len(deadlines_s) - first, largest)
    while size > 0 and exceeds(now_s + time_s(size), deadlines_s[first]):
        size -= 1
    return size
