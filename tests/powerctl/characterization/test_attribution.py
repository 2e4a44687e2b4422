from __future__ import annotations

import pytest

from powerctl.characterization.observing import timed_epoch
from powerctl.errors import InvalidInput


class Clock:
    """Time that passes only when somebody takes it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def take(self, seconds):
        self.now += seconds


def run(load_s, step_s, synchronise_s=0.0, end_s=0.0, iterator_s=0.0):
    clock = Clock()

    def loader():
        for seconds in load_s:
            clock.take(seconds)
            yield seconds
        clock.take(end_s)

    class Loader:
        def __iter__(self):
            clock.take(iterator_s)
            return loader()

    def step(batch):
        clock.take(step_s)
        return 2

    return timed_epoch(Loader(), step, lambda: clock.take(synchronise_s), clock)


def test_waiting_for_data_is_stall_and_running_is_compute():
    timing = run(load_s=[3.0, 1.0, 1.0], step_s=10.0)
    assert timing.stalls_s == [3.0, 1.0, 1.0]
    assert timing.computes_s == [10.0, 10.0, 10.0]
    assert (timing.stall_s, timing.compute_s, timing.seconds) == (5.0, 30.0, 35.0)
    assert timing.samples == 6


def test_what_the_device_does_after_the_step_returned_is_compute():
    timing = run(load_s=[1.0, 1.0], step_s=0.0, synchronise_s=7.0)
    assert timing.compute_s == 14.0
    assert timing.stall_s == 2.0


def test_making_the_iterator_and_its_end_are_stall():
    timing = run(load_s=[1.0], step_s=1.0, iterator_s=4.0, end_s=2.0)
    assert timing.start_s == 5.0
    assert timing.end_s == 2.0
    assert timing.stall_s == 7.0


def test_an_epoch_without_minibatches_is_refused():
    with pytest.raises(InvalidInput, match="no minibatch"):
        run(load_s=[], step_s=1.0)
