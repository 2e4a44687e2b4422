"""Where an epoch's time goes: waiting for data around the iterator, or computing until it is done.

The two are told apart on one thread, by stamps that share their ends, so that together with the
loop itself they are the epoch: nothing is estimated, and nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from powerctl.errors import InvalidInput


@dataclass(frozen=True)
class Timing:
    """Seconds of one epoch; see `powerctl.characterization.results.Epoch`.

    `stalls_s` and `computes_s` are of each minibatch; `start_s` is the first stall with the making
    of the iterator, `end_s` the wait that found no more.
    """

    seconds: float
    start_s: float
    end_s: float
    stalls_s: list[float]
    computes_s: list[float]
    samples: int

    @property
    def stall_s(self) -> float:
        """All waiting."""
        return self.start_s + sum(self.stalls_s[1:]) + self.end_s

    @property
    def compute_s(self) -> float:
        """All computing."""
        return sum(self.computes_s)


def timed_epoch(
    loader: Iterable[Any],
    step: Callable[[Any], int],
    synchronise: Callable[[], None],
    clock: Callable[[], float] = perf_counter,
) -> Timing:
    """Run one epoch and attribute its time.

    Parameters
    ----------
    loader : iterable
        Of minibatches; making its iterator is part of the epoch.
    step : callable
        Moves a minibatch to the device and computes on it; gives its number of samples.
    synchronise : callable
        Returns when the device has done all that was launched on it.
    clock : callable
        Seconds.
    """
    stalls, computes = [], []
    samples = 0
    synchronise()
    began = mark = clock()
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            break
        fetched = clock()
        stalls.append(fetched - mark)
        samples += step(batch)
        synchronise()
        mark = clock()
        computes.append(mark - fetched)
    end = clock()
    if not stalls:
        raise InvalidInput("the data set is empty: an epoch had no minibatch")
    return Timing(end - began, stalls[0], end - mark, stalls, computes, samples)
