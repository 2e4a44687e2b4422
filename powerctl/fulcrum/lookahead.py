"""What becomes of a queue: whether all of it can be met, from when on not, and what can be saved.

One machine that runs one batch at a time and is never interrupted: of batches that are all there,
the order by deadline meets all deadlines if any order does (Jackson 1955).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

from powerctl.fulcrum.queueing import Demand, exceeds


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
