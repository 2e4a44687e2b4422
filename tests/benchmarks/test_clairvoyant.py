"""What a server that knows the future could meet."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.clairvoyant import can_be_met
from powerctl.fulcrum.durations import BatchTimes

pytestmark = pytest.mark.studies

TIMES = BatchTimes({1: 1.0, 2: 1.5, 4: 2.5})


def test_requests_that_are_far_apart_are_met_if_one_is():
    assert can_be_met([0.0, 5.0, 10.0], 1.0, TIMES)
    assert not can_be_met([0.0, 5.0, 10.0], 0.9, TIMES)
    assert can_be_met([], 0.9, TIMES)


def test_a_burst_is_met_in_batches_as_large_as_there_are():
    assert can_be_met([0.0] * 8, 5.0, TIMES)
    assert not can_be_met([0.0] * 8, 4.9, TIMES)


def test_it_waits_for_a_request_that_it_knows_will_come():
    assert can_be_met([0.0, 0.5, 0.5], 2.5, TIMES)  # three at once, from 0.5 on
    assert not can_be_met([0.0, 0.5, 0.5], 1.9, TIMES)


@given(st.lists(st.floats(0, 2), max_size=12), st.floats(1, 6))
def test_more_latency_never_hurts(gaps_s, latency_s):
    arrivals_s = list(accumulate(gaps_s))
    if can_be_met(arrivals_s, latency_s, TIMES):
        assert can_be_met(arrivals_s, latency_s + 0.5, TIMES)
