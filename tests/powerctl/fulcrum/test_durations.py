"""Times of minibatches: what is known between sizes, and what is learned on line."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput
from powerctl.fulcrum.durations import Backoff, BatchTimes, LearnedTimes

PLAN = {1: 0.01, 4: 0.016, 16: 0.04}


def test_times_between_known_sizes_are_interpolated():
    times = BatchTimes(PLAN)
    assert times(1) == 0.01 and times(16) == 0.04
    assert times(10) == pytest.approx((0.016 + 0.04) / 2)


def test_no_request_takes_no_time_and_fewer_than_known_as_long_as_the_smallest():
    assert BatchTimes({4: 0.1})(2) == 0.1 and BatchTimes({4: 0.1})(0) == 0


def test_beyond_the_largest_batches_run_one_after_another():
    assert BatchTimes(PLAN)(33) == pytest.approx(2 * 0.04 + 0.01)


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-3, 1), min_size=1))
def test_a_batch_never_counts_with_more_time_than_a_larger_one(time_s):
    times = BatchTimes(time_s)
    seconds = [times(size) for size in range(1, max(time_s) + 1)]
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(seconds))


@pytest.mark.parametrize("bad", [{}, {0: 1.0}, {1: 0.0}, {1: math.nan}, {1: math.inf}])
def test_times_that_are_none_are_refused(bad):
    with pytest.raises(InvalidInput, match="batch"):
        BatchTimes(bad)


def test_a_plan_that_is_exact_and_confirmed_stays_exact():
    times = LearnedTimes(PLAN, spread=0.0)
    for _ in range(50):
        times.observe(16, 0.04)
    assert times.safe_s(16) == times.expected_s(16) == 0.04


def test_the_safety_quantile_covers_that_share_of_batches():
    rng = np.random.default_rng(0)
    times = LearnedTimes({1: 0.1}, quantile=0.95)
    over = 0
    for time_s in 0.1 * np.exp(0.1 * rng.standard_normal(4000)):
        over += time_s > times.safe_s()
        times.observe(1, time_s)
    assert times.spread == pytest.approx(0.1, rel=0.25)
    assert 0.03 < over / 4000 < 0.08


@pytest.mark.parametrize("factor", [0.5, 1.15, 1.4, 3.0, 10.0])
@pytest.mark.parametrize("before", [0, 1000])
def test_a_slower_or_faster_mode_is_counted_on_within_a_few_minibatches(before, factor):
    rng = np.random.default_rng(1)
    times = LearnedTimes({1: 0.1})
    for time_s in 0.1 * np.exp(0.05 * rng.standard_normal(before)):
        times.observe(1, time_s)
    for _ in range(8):
        times.observe(1, 0.1 * factor)
    assert times.safe_s() >= 0.1 * factor
    assert times.expected_s() == pytest.approx(0.1 * factor, rel=0.16)


def test_one_stall_teaches_little():
    times = LearnedTimes({1: 0.1})
    for _ in range(100):
        times.observe(1, 0.1)
    times.observe(1, 5.0)
    assert times.expected_s() < 0.101 and times.safe_s() < 0.12


def test_what_one_size_shows_is_expected_of_its_neighbours():
    times = LearnedTimes(PLAN)
    for _ in range(30):
        times.observe(4, 0.016 * 1.5)
    assert times.expected_s(1) / 0.01 > 1.2 and times.expected_s(16) / 0.04 > 1.2


def test_a_guess_gives_way_to_the_first_measurement():
    times = LearnedTimes({1: 1.0}, weight=0.01)
    times.observe(1, 0.02)
    assert times.expected_s() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("nothing", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_measurement_teaches_nothing(nothing):
    times = LearnedTimes(PLAN)
    times.observe(1, nothing)
    assert times.expected_s(1) == 0.01


def test_a_new_plan_replaces_what_was_learned():
    times = LearnedTimes(PLAN)
    for _ in range(20):
        times.observe(4, 0.05)
    times.replan({1: 0.5})
    assert times.expected_s(1) == 0.5 and times.largest == 1


@given(st.floats(0, 0.2), st.integers(0, 40))
def test_the_largest_within_a_time_fits_and_one_more_does_not(time_s, most):
    times = LearnedTimes(PLAN)
    size = times.largest_within(time_s, most)
    assert size == 0 or times.safe_s(size) <= time_s + 1e-9
    assert size == min(most, 16) or times.safe_s(size + 1) > time_s


@pytest.mark.parametrize("bad", [{"quantile": 1.0}, {"spread": -1.0}, {"weight": math.nan}])
def test_parameters_outside_their_range_are_refused(bad):
    with pytest.raises(InvalidInput):
        LearnedTimes(PLAN, **bad)


def test_a_job_that_seems_too_slow_is_given_the_plan_again_after_ever_longer_waits():
    times, patience, tried_s = LearnedTimes({1: 0.1}), Backoff(), []
    for now_s in range(100):
        for _ in range(5):
            times.observe(1, 2.0)
        if patience.reconsider(times, float(now_s)):
            tried_s.append(now_s)
            assert times.expected_s() == 0.1
    assert tried_s == [5, 15, 35, 75]


@pytest.mark.parametrize(("as_planned", "again_s"), [(True, 5), (False, 20)])
def test_waits_are_short_again_after_a_turn_as_planned(as_planned, again_s):
    times, patience = LearnedTimes({1: 0.1}), Backoff()

    def next_try_s(since_s):
        for _ in range(5):
            times.observe(1, 2.0)
        return next(t for t in range(since_s, 100) if patience.reconsider(times, float(t)))

    assert next_try_s(0) == 5 and next_try_s(5) == 15
    patience.ran(15.0, as_planned)
    assert next_try_s(15) == 15 + again_s


def test_a_job_as_fast_as_planned_has_nothing_to_reconsider():
    patience = Backoff()
    assert not any(patience.reconsider(LearnedTimes({1: 0.1}), t) for t in (0.0, 100.0))
