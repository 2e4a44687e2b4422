"""Whether the requests of all services can still be met after a turn, and from when on not."""

from __future__ import annotations

import math
from collections.abc import Mapping

from powerctl.fulcrum.lookahead import all_met, latest_start_s
from powerctl.fulcrum.queueing import Demand, ServiceQueue

_MOST_SHARE = 0.9  # of the device that more urgent services are thought to take


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
