"""The served trace: one job at a time, whole minibatches, and every request counted."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.trace_serving import Oracle, Static, optimum, serve
from benchmarks.traces import constant, poisson, steps
from powerctl.errors import InvalidInput
from powerctl.fulcrum.controller import Reaction, ServingPlan, WindowController
from powerctl.fulcrum.problems import Concurrent, Job
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.solvers import find_solver
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays, PowerMode

SLOW, FAST = PowerMode(4, 1_000_000, 10**9, 10**9), PowerMode(8, 1_000_000, 10**9, 10**9)
TRAIN = Job("train")
PROBLEM = Concurrent(30.0, 10.0, 1.0, (1, 4))


@pytest.fixture(scope="module")
def two_modes() -> Replay:
    """A slow mode of 20 W and a fast one of 40 W."""
    modes = ModeArrays.of([SLOW, FAST])
    train = MeasurementTable(modes, None, np.array([0.2, 0.1]), np.array([20.0, 40.0]))
    modes = ModeArrays.of([SLOW, SLOW, FAST, FAST])
    times, powers = np.array([0.06, 0.1, 0.03, 0.05]), np.array([15.0, 18.0, 30.0, 36.0])
    infer = MeasurementTable(modes, np.array([1, 4, 1, 4]), times, powers)
    return Replay.of({"train": train, "infer": infer}, "orin-agx")


def plan(mode=SLOW, batch_size=4, other=TRAIN):
    return Static(ServingPlan(mode, batch_size, other, 10.0, True))


def test_full_batches_run_and_training_fills_the_rest(two_modes):
    served = serve(list(constant(10, 100)), plan(), two_modes, PROBLEM)
    assert served.requests == 1000 and served.late == 0
    # A cycle of 0.4 s: a batch of 0.1 s, and 0.3 s of training in minibatches of 0.2 s.
    assert served.other_rate_hz == pytest.approx(0.3 / 0.4 / 0.2, rel=0.01)
    assert served.busy_s == pytest.approx(served.duration_s, rel=0.01)
    energy_j = 250 * 0.1 * 18 + served.other_minibatches * 0.2 * 20
    assert served.energy_j == pytest.approx(energy_j)


def test_a_batch_that_does_not_fill_runs_before_it_is_late(two_modes):
    served = serve([0.5, 20.0, 40.0], plan(), two_modes, PROBLEM)
    assert served.late == 0 and 0.5 < served.p99_latency_s <= 1


def test_alone_a_batch_waits_to_the_last_moment(two_modes):
    served = serve([0.5, 20.0], plan(other=None), two_modes, PROBLEM)
    assert served.p99_latency_s == pytest.approx(1.0) and served.late == 0
    assert served.busy_s == pytest.approx(0.2) and served.other_minibatches == 0


def test_what_comes_faster_than_it_is_served_is_late(two_modes):
    served = serve(list(constant(100, 20)), plan(), two_modes, PROBLEM)
    assert served.late_pct > 50


def test_power_above_the_limit_is_counted(two_modes):
    trace = list(constant(10, 50))
    assert serve(trace, plan(), two_modes, PROBLEM).over_power_s == 0
    served = serve(trace, plan(FAST), two_modes, PROBLEM)
    assert served.over_power_s == pytest.approx(served.busy_s)


def test_a_change_of_mode_takes_its_time(two_modes):
    class Switching:
        def arrived(self, now_s):
            pass

        def decide(self, now_s):
            return plan(SLOW if int(now_s) % 2 else FAST).decision

    trace = list(constant(10, 20))
    costly = serve(trace, Switching(), two_modes, PROBLEM, switch_s=0.5)
    free = serve(trace, Switching(), two_modes, PROBLEM, switch_s=0.0)
    assert 5 <= costly.switches <= free.switches
    idle_s = costly.duration_s - costly.busy_s
    assert idle_s == pytest.approx(0.5 * costly.switches, abs=0.2)


def test_the_planner_hears_of_every_request_in_order_and_of_none_that_is_to_come(two_modes):
    heard = []

    class Listening(Static):
        def arrived(self, now_s):
            heard.append(now_s)

        def decide(self, now_s):
            assert not heard or heard[-1] <= now_s
            return self.decision

    trace = list(constant(10, 30))
    serve(trace, Listening(plan().decision), two_modes, PROBLEM)
    assert heard == trace[: len(heard)] and len(heard) > 280


def test_the_oracle_plans_for_the_window_that_comes(replay):
    problem = Concurrent(25.0, 60.0, 1.0, (1, 4, 16, 64))
    trace = list(steps([(20, 30), (150, 30)], np.random.default_rng(0)))
    oracle = Oracle(problem, replay, trace, Reaction())
    assert oracle.decide(5.0).rate_hz == pytest.approx(20, rel=0.3)
    assert oracle.decide(31.0).rate_hz == pytest.approx(150, rel=0.3)
    assert oracle.decide(32.0) is oracle.decide(33.0) and oracle.solves == 2


def test_the_optimum_is_the_best_of_the_table(replay):
    problem = Concurrent(25.0, 60.0, 1.0, (1, 4, 16, 64))
    trace = list(constant(60, 60))
    rates = []
    for limit_w in (18.0, 20.0, 25.0):
        limited = Concurrent(limit_w, 60.0, 1.0, (1, 4, 16, 64))
        served = serve(trace, Static(optimum(limited, replay)), replay, problem)
        assert served.late == 0 and served.over_power_s == 0
        rates.append(served.other_rate_hz)
    assert rates == sorted(rates)


def test_ten_minutes_are_served_within_seconds(replay):
    problem = Concurrent(25.0, 60.0, 1.0, (1, 4, 16, 64))
    solver = find_solver("gmd").make(0, ())
    controller = WindowController(problem, replay.candidates, replay.measure, solver)
    trace = list(poisson(60, 600, np.random.default_rng(0)))
    started_s = time.thread_time()
    served = serve(trace, controller, replay, problem)
    assert time.thread_time() - started_s < 10
    assert served.requests == len(trace) and served.late_pct < 0.1 and served.over_power_s == 0


def test_an_empty_trace_is_refused(two_modes):
    with pytest.raises(InvalidInput, match="at least one request"):
        serve([], plan(), two_modes, PROBLEM)
