"""A service's queue, the rate of its arrivals, and what becomes of queues."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.traces import bursts, constant, poisson
from powerctl.errors import InvalidInput
from powerctl.fulcrum.arrival_rate import ArrivalRate
from powerctl.fulcrum.durations import BatchTimes, LearnedTimes
from powerctl.fulcrum.queueing import Demand, ServiceQueue
from powerctl.fulcrum.schedulability import (
    Schedulability,
    all_met,
    largest_met,
    latest_start_s,
    save_most,
)
from powerctl.fulcrum.turns import ServiceSpec

DEMANDS = st.lists(st.builds(Demand, st.floats(0.1, 5), st.floats(0.01, 1)), min_size=1, max_size=5)


def service(**changes):
    given_ = {"name": "a", "latency_s": 1.0, "batch_size": 4, "time_s": {1: 0.1, 4: 0.2, 8: 0.3}}
    return ServiceSpec(**{**given_, **changes})


def queue(deadlines_s=(), **changes):
    made = ServiceQueue(service(**changes), LearnedTimes(service(**changes).time_s, spread=0.0))
    for number, deadline_s in enumerate(deadlines_s):
        made.add(number, deadline_s)
    return made


def learned(trace, rate_hz=0.0):
    rate = ArrivalRate(rate_hz)
    for at_s in trace:
        rate.arrived(at_s)
    return rate


def test_a_rate_is_learned_without_a_plan_or_from_a_wrong_one():
    trace = list(poisson(20, 60, np.random.default_rng(0)))
    for planned_hz in (0.0, 5.0, 100.0):
        assert learned(trace, planned_hz).rate_hz == pytest.approx(20, rel=0.35)


def test_dispersion_tells_constant_from_random_from_bursty_arrivals():
    rng = np.random.default_rng(0)
    even = learned(constant(20, 60), 20).dispersion
    random = learned(poisson(20, 60, rng), 20).dispersion
    bursty = learned(bursts(20, 20, 1, 3, 120, rng), 20).dispersion
    assert even < 0.1 < random < bursty


@pytest.mark.parametrize("trace", [constant(100, 5), poisson(100, 5, np.random.default_rng(0))])
def test_an_unusual_silence_counts_before_it_is_over(trace):
    *_, last_s = trace = list(trace)
    rate = learned(trace)
    known_hz = rate.rate_hz
    rate.seen(last_s + 1 / known_hz)
    assert rate.rate_hz == known_hz
    rate.seen(last_s + 60)
    assert rate.rate_hz < 2 and rate.most(0.05, 2.0) < 5
    rate.arrived(last_s + 1 / known_hz)
    assert rate.rate_hz == pytest.approx(known_hz)


def test_arrivals_are_provided_for_beyond_their_mean_and_at_least_one():
    rate = ArrivalRate(100.0)
    assert rate.most(0.0, 3.0) == 1
    assert rate.most(1.0, 0.0) == 101 and rate.most(1.0, 3.0) == 131
    assert math.isinf(rate.most(1.0, math.inf))


def test_arrivals_all_at_once_are_no_division_by_zero():
    rate = learned([1.0, 1.0, 1.0])
    assert math.isinf(rate.most(1.0, 2.0)) and rate.earliest_s(3, 2.0) == 0
    assert queue().reserve(1.0, math.inf) == 8


@given(st.floats(0.1, 100), st.integers(0, 200), st.floats(0, 4))
def test_the_earliest_time_of_an_arrival_is_when_the_most_grows_beyond_it(rate_hz, number, dev):
    rate = ArrivalRate(rate_hz)
    at_s = rate.earliest_s(number, dev)
    assert rate.most(at_s * 1.001 + 1e-6, dev) > number
    assert rate.most(at_s * 0.999, dev) <= max(number, 1)


def test_requests_queue_by_deadline_then_by_arrival():
    assert [q.request for q in queue([3.0, 1.0, 2.0, 1.0]).queue] == [1, 3, 2, 0]


def test_a_request_leaves_wherever_it_waits():
    made = queue([1.0, 2.0])
    made.late = made.take(0, 1)
    assert made.remove(0) and made.remove(1) and not made.remove(1) and len(made) == 0


def test_only_requests_that_not_even_a_batch_of_one_meets_are_hopeless():
    made = queue([0.05, 0.1, 0.5])
    assert [q.request for q in made.take_hopeless(0.0)] == [0]
    assert [q.request for q in made.queue] == [1, 2]


def test_of_batches_to_run_the_least_time_per_request_comes_first():
    made = queue([9.0] * 8, time_s={1: 0.1, 4: 0.12, 8: 0.3})
    assert made.batches(9.0) == [4, 8]


def test_a_planned_batch_that_has_filled_is_not_split_for_efficiency():
    assert min(queue([9.0] * 5).batches(9.0)) == 4
    assert max(queue([9.0] * 5).batches(0.15)) < 4  # time allows no planned batch


def test_a_batch_is_one_turn_or_several_as_deadlines_allow():
    together = queue([1.0] * 6).demands(0.0, 0.5, 0, 0, 2.0)
    assert together == [Demand(1.0, pytest.approx(0.25))]
    apart = queue([0.7] * 4 + [2.0] * 4).demands(0.0, 0.5, 0, 0, 2.0)
    assert [d.deadline_s for d in apart] == [0.7, 2.0]
    assert queue([0.55]).demands(0.0, 0.5, 0, 0, 2.0) is None


def test_what_arrives_during_a_turn_counts_from_its_beginning():
    made = queue([], latency_s=0.6)
    assert made.demands(0.0, 0.5, 0, 1, 2.0) == [Demand(0.6, pytest.approx(0.1))]
    assert made.demands(0.0, 0.51, 0, 1, 2.0) is None


def test_a_long_deadline_hides_no_shorter_one_of_a_batch_mate_to_come():
    assert queue([9.0], latency_s=0.6).demands(0.0, 0.55, 0, 1, 2.0) is None


def test_who_can_wait_for_ever_reserves_nothing():
    assert queue(latency_s=math.inf, rate_hz=100.0).reserve(1.0, 3.0) == 0


def test_a_new_planned_rate_replaces_the_observed_one():
    made = queue(rate_hz=10.0)
    for at_s in constant(50, 20):
        made.arrivals.arrived(at_s)
    made.replan(service(rate_hz=10.0))
    assert made.arrivals.rate_hz == pytest.approx(50, rel=0.01)
    made.replan(service(rate_hz=5.0))
    assert made.arrivals.rate_hz == 5


@pytest.mark.parametrize(
    "bad",
    [
        {"latency_s": 0.0},
        {"batch_size": 9},
        {"time_s": {}},
        {"capacity": 0},
        {"rate_hz": -1.0},
        {"late": "drop"},
    ],
)
def test_a_service_outside_its_ranges_is_refused_by_name(bad):
    with pytest.raises(InvalidInput, match="a:"):
        service(**bad)


@given(DEMANDS, st.floats(0, 2))
def test_if_any_order_meets_all_deadlines_the_one_by_deadline_does(demands, start_s):
    def met(order):
        ends_s = itertools.accumulate((d.time_s for d in order), initial=start_s)
        return all(e <= d.deadline_s for e, d in zip(list(ends_s)[1:], order, strict=True))

    if any(met(order) for order in itertools.permutations(demands)):
        assert all_met(demands, start_s)


@given(DEMANDS)
def test_the_latest_start_is_the_last_at_which_all_is_met(demands):
    latest_s = latest_start_s(demands)
    assert all_met(demands, latest_s - 1e-9) and not all_met(demands, latest_s + 1e-6)


def test_nothing_queued_may_start_whenever():
    assert math.isinf(Schedulability({"a": queue()}, 2.0).latest_start_s())


def test_an_outlook_adds_up_services_that_are_met_each_alone():
    queues = {name: queue([0.25], name=name) for name in "ab"}
    for name in "ab":
        assert Schedulability({name: queues[name]}, 2.0).is_safe(0.0, 0.1, arrivals=False)
    assert not Schedulability(queues, 2.0).is_safe(0.0, 0.1, arrivals=False)


def test_a_head_that_would_cost_the_others_is_left_out():
    times = BatchTimes({1: 0.1, 8: 0.3})
    deadlines_s = [0.12] + [0.32] * 8
    assert save_most(0.0, deadlines_s, times, times.sizes) == (1, 8)


def test_with_nothing_to_save_the_head_runs():
    assert save_most(1.0, [0.5, 0.6], BatchTimes({1: 0.1}), (1,)) == (0, 1)


def test_the_largest_met_is_bounded_by_queue_time_and_batch():
    times = BatchTimes({1: 0.1, 8: 0.8})
    assert largest_met(0.0, [0.5] * 10, 0, times, 8) == 5
    assert largest_met(0.0, [9.0] * 10, 8, times, 8) == 2
    assert largest_met(0.0, [0.05], 0, times, 8) == 0
