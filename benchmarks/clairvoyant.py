"""Whether a trace can be met at all: by a server that knows it, and does nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from powerctl.fulcrum.durations import BatchTimes


def can_be_met(arrivals_s: Sequence[float], latency_s: float, times: BatchTimes) -> bool:
    """Whether batches exist that answer every request within the latency, never interrupted.

    All have the same latency, so some best schedule serves them in the order of their arrival:
    the earliest end of the first j is the least over the size of their last batch, which begins
    when its last request is there and the batch before has ended.

    Parameters
    ----------
    arrivals_s : sequence of float
        Ascending.
    latency_s : float
        From arrival to answer.
    times : BatchTimes
        Seconds by batch size.
    """
    took_s = [times(size) for size in range(times.largest + 1)]
    ends_s = [-math.inf]
    for last, arrived_s in enumerate(arrivals_s):
        best_s = math.inf
        for size in range(1, min(times.largest, last + 1) + 1):
            end_s = max(ends_s[last + 1 - size], arrived_s) + took_s[size]
            if end_s <= arrivals_s[last + 1 - size] + latency_s + 1e-9:
                best_s = min(best_s, end_s)
        ends_s.append(best_s)
        if len(ends_s) > times.largest and all(map(math.isinf, ends_s[-times.largest :])):
            return False
    return math.isfinite(ends_s[-1]) or not arrivals_s
