"""The controller follows the rate, not its chance; measures little; and keeps what is as good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.traces import constant, poisson, steps
from powerctl.errors import Infeasible, InvalidInput
from powerctl.fulcrum.controller import Reaction, WindowController, best_plan, lowest_rate_hz
from powerctl.fulcrum.problems import Concurrent, InferAlone, Job, TwoInferences
from powerctl.fulcrum.solvers import find_solver

SIZES = (1, 4, 16, 64)
PROBLEM = Concurrent(25.0, 60.0, 1.0, SIZES)


@pytest.fixture
def make(replay):
    """A controller on the table; `calls` counts what it measures."""

    def controller(problem=PROBLEM, calls=None, **reaction):
        def measure(mode, job):
            if calls is not None:
                calls.append((mode, job))
            return replay.measure(mode, job)

        solver = find_solver("gmd").make(0, ())
        settings = Reaction(**reaction)
        return WindowController(problem, replay.candidates, measure, solver, reaction=settings)

    return controller


def drive(controller, arrivals, until_s):
    """Tell of arrivals and ask every second; the decisions."""
    waiting, decisions = list(arrivals), []
    for second in range(1, int(until_s) + 1):
        while waiting and waiting[0] <= second:
            controller.arrived(waiting.pop(0))
        decisions.append(controller.decide(float(second)))
    return decisions


def test_the_first_plan_is_for_the_expected_rate_within_the_first_cap(make):
    controller = make(first_cap=9)
    assert controller.present.feasible and controller.present.rate_hz == 60
    assert controller.solves == 1 and 0 < controller.profiled <= 9


def test_a_steady_rate_is_hardly_planned_anew(make):
    controller = make()
    drive(controller, poisson(60, 300, np.random.default_rng(0)), 300)
    assert controller.solves <= 4
    assert 60 <= controller.present.rate_hz <= 80


@pytest.mark.parametrize("rate_hz", [20, 150])
def test_a_changed_rate_is_planned_for_with_headroom(make, rate_hz):
    controller = make()
    drive(controller, steps([(60, 30), (rate_hz, 60)], np.random.default_rng(0)), 90)
    assert rate_hz <= controller.present.rate_hz <= 1.5 * rate_hz


def test_a_rise_shows_sooner_than_a_fall(make):
    def seconds_to_change(rate_hz):
        trace = steps([(60, 20), (rate_hz, 40)], np.random.default_rng(0))
        decisions = drive(make(), trace, 60)
        return next(i for i, d in enumerate(decisions[20:]) if d.rate_hz != decisions[19].rate_hz)

    assert seconds_to_change(180) <= 1 < seconds_to_change(20)


def test_silence_is_planned_for_as_the_lowest_sensible_rate(make):
    controller = make()
    decision = drive(controller, [], 30)[-1]
    assert decision.feasible and decision.rate_hz == lowest_rate_hz(PROBLEM) == 2


def test_each_plan_probes_few_modes_and_a_known_rate_none(make):
    controller = make(probes=2)
    first = controller.profiled
    trace = [*constant(60, 20), *constant(120, 40, 20), *constant(60, 40, 60)]
    drive(controller, trace, 100)
    there = controller.profiled
    assert controller.solves > 2 and there - first <= 4 * (controller.solves - 1)
    drive_again = [time_s + 100 for time_s in trace]
    solves = controller.solves
    for second in range(101, 201):
        while drive_again and drive_again[0] <= second:
            controller.arrived(drive_again.pop(0))
        controller.decide(float(second))
    assert controller.solves > solves and controller.profiled == there


def test_nothing_is_measured_twice(make):
    calls = []
    drive(make(calls=calls), steps([(30, 30), (120, 30), (60, 30)], np.random.default_rng(1)), 90)
    assert len(calls) == len(set(calls))


def test_what_was_measured_before_is_not_measured_again(make, replay):
    solver = find_solver("gmd").make(0, ())

    def refuse(mode, job):
        raise AssertionError("it is known")

    known = {"known": replay.record}
    controller = WindowController(PROBLEM, replay.candidates, refuse, solver, **known)
    assert controller.present.feasible and controller.profiled == 0


def test_the_mode_is_kept_if_another_gains_little(replay):
    best = best_plan(PROBLEM, replay.candidates, replay.record)
    others = (
        best_plan(replace(PROBLEM, power_limit_w=w), replay.candidates, replay.record)
        for w in (24.5, 24.0, 23.0, 22.0)
    )
    present = next(other for other in others if other.mode != best.mode)
    asked = (PROBLEM, replay.candidates, replay.record)
    assert best_plan(*asked, present=present, gain=0.9).mode == present.mode
    assert best_plan(*asked, present=present, gain=0.0) == best


@pytest.mark.parametrize(
    ("problem", "other"),
    [
        (PROBLEM, Job("train")),
        (InferAlone(25.0, 60.0, 0.5, SIZES), None),
        (TwoInferences(25.0, 60.0, 1.0, SIZES, (4, 16)), "background"),
        (Concurrent(40.0, 60.0, 1.5, SIZES, energy_limit_j=60.0), Job("train")),
    ],
)
def test_every_problem_with_a_rate_can_be_controlled(make, problem, other):
    decision = make(problem).present
    assert decision.feasible and decision.batch_size in SIZES
    assert decision.other == other or decision.other.role == other


def test_a_plan_keeps_the_power_limit_and_the_latency(make, replay):
    decision = make().present
    infer_s, infer_w = replay.measure(decision.mode, Job("infer", decision.batch_size))
    other_s, other_w = replay.measure(decision.mode, decision.other)
    assert max(infer_w, other_w) <= 25 and infer_s + other_s <= 1


def test_what_cannot_be_met_serves_requests_alone_within_the_power(make, replay):
    decision = make(replace(PROBLEM, rate_hz=3000.0)).present
    assert not decision.feasible and decision.other is None
    time_s, power_w = replay.measure(decision.mode, Job("infer", decision.batch_size))
    assert power_w <= 25 and 2 * time_s <= 1


def test_an_impossible_power_limit_takes_the_least_power(make, replay):
    controller = make(replace(PROBLEM, power_limit_w=5.0))
    decision = controller.present
    _, power_w = replay.measure(decision.mode, Job("infer", decision.batch_size))
    assert not decision.feasible and power_w == pytest.approx(
        np.nanmin(controller.record.power_w[:, [j.role == "infer" for j in controller.record.jobs]])
    )


def test_a_peak_that_was_seen_is_kept_up_with(replay):
    calm = replace(PROBLEM, rate_hz=10.0)
    for peak_hz in (0.0, 300.0):
        decision = best_plan(calm, replay.candidates, replay.record, peak_hz=peak_hz)
        time_s, _ = replay.measure(decision.mode, Job("infer", decision.batch_size))
        assert decision.batch_size / time_s >= 0.9 * peak_hz


def test_nothing_measured_is_said(replay):
    blank = replace(replay.record, time_s=np.full_like(replay.record.time_s, np.nan))
    with pytest.raises(Infeasible, match="is measured; measure more modes"):
        best_plan(PROBLEM, replay.candidates, blank)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quick_s": 20.0}, "quick_s <= window_s"),
        ({"band": 1.0}, "band is between 0 and 1"),
        ({"quantile": 0.0}, "quantile is between 0 and 1"),
        ({"probes": -1}, "at least 0"),
    ],
)
def test_a_reaction_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        Reaction(**settings)
