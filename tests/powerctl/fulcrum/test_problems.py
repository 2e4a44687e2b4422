from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Concurrent, InferAlone, Job, TrainAlone, TwoInferences
from powerctl.fulcrum.search import best_of

SIZES = (1, 4, 16, 32)
bounds = {
    "power_limit_w": st.floats(10, 60),
    "rate_hz": st.floats(5, 120),
    "latency_s": st.floats(0.1, 2),
    "batch_sizes": st.just(SIZES),
}
guards = st.booleans()
kinds = st.one_of(
    st.builds(TrainAlone, st.floats(10, 60), st.floats(0.5, 20) | st.just(math.inf)),
    st.builds(InferAlone, **bounds, energy_limit_j=st.floats(0.5, 20) | st.just(math.inf)),
    st.builds(
        Concurrent,
        **bounds,
        objective=st.sampled_from(["rate", "count"]),
        guard=guards,
        energy_limit_j=st.floats(2, 60) | st.just(math.inf),
    ),
    st.builds(
        TwoInferences,
        **bounds,
        background_batch_sizes=st.just((8, 16)),
        background_latency_s=st.floats(0.02, 1) | st.just(math.inf),
        guard=guards,
        energy_limit_j=st.floats(2, 60) | st.just(math.inf),
    ),
)
seeds = st.integers(0, 10_000)


def costs(problem, seed, modes=12):
    """Any times and powers at all, some rounded so that ties and exact fits occur."""
    rng = np.random.default_rng(seed)
    shape = (modes, len(problem.jobs))
    time_s, power_w = np.exp(rng.uniform(-5, 0, shape)), rng.uniform(8, 50, shape)
    return (time_s.round(2) + 0.01, power_w.round()) if seed % 2 else (time_s, power_w)


def plain_value(problem, times, powers):
    """What the facts' formulas say of one choice: the objective, or None if a bound is broken.

    Times and powers are of the choice's jobs by role.
    """
    b = {job.role: job.batch_size for job in times}
    t = {job.role: time for job, time in times.items()}
    p = {job.role: power for job, power in powers.items()}
    if max(p.values()) > problem.power_limit_w:
        return None
    if isinstance(problem, TrainAlone):
        return t["train"] if t["train"] * p["train"] <= problem.energy_limit_j else None
    cycle_s = b["infer"] / problem.rate_hz
    if isinstance(problem, InferAlone):
        latency_s = cycle_s + t["infer"]
        kept = (
            latency_s <= problem.latency_s
            and t["infer"] <= cycle_s
            and t["infer"] * p["infer"] <= problem.energy_limit_j
        )
        return latency_s if kept else None
    slot = "train" if isinstance(problem, Concurrent) else "background"
    k = 0
    while t["infer"] + (k + 1) * t[slot] <= cycle_s * (1 + 1e-12) and (
        p["infer"] * t["infer"] + (k + 1) * p[slot] * t[slot] <= problem.energy_limit_j
    ):
        k += 1
    waits_s = t[slot] if problem.guard else 0
    if k < 1 or cycle_s + t["infer"] + waits_s > problem.latency_s:
        return None
    if slot == "train":
        return k if problem.objective == "count" else k / cycle_s
    waits_s = t["infer"] if problem.guard else 0
    if t[slot] + waits_s > problem.background_latency_s:
        return None
    return k * b[slot] / cycle_s


@given(kinds, seeds)
def test_the_vectorised_optimum_is_that_of_a_plain_loop(problem, seed):
    time_s, power_w = costs(problem, seed)
    values = []
    for row in range(len(time_s)):
        for choice in problem.choices:
            jobs = {problem.jobs[i]: i for i in choice}
            times = {job: time_s[row, i] for job, i in jobs.items()}
            powers = {job: power_w[row, i] for job, i in jobs.items()}
            values.append(plain_value(problem, times, powers))
    evaluation = problem.evaluate(time_s, power_w)
    assert evaluation.feasible.ravel().tolist() == [value is not None for value in values]
    best = best_of(evaluation)
    feasible = [value for value in values if value is not None]
    if not feasible:
        assert best is None
    else:
        expected = max(feasible) if problem.maximised else min(feasible)
        assert problem.value(evaluation.loss[best]) == pytest.approx(expected, rel=1e-9)


@given(kinds, seeds)
def test_a_choice_is_feasible_just_where_nothing_is_in_excess(problem, seed):
    evaluation = problem.evaluate(*costs(problem, seed))
    assert np.array_equal(evaluation.feasible, evaluation.excess <= 0)
    assert np.isfinite(evaluation.loss).all() and np.isfinite(evaluation.excess).all()


@given(kinds, seeds)
def test_what_is_not_measured_is_not_feasible_and_has_no_loss(problem, seed):
    time_s, power_w = costs(problem, seed)
    gone = np.random.default_rng(seed).random(time_s.shape) < 0.3
    time_s[gone] = power_w[gone] = np.nan
    evaluation = problem.evaluate(time_s, power_w)
    missing = np.zeros(evaluation.loss.shape, dtype=bool)
    for number, choice in enumerate(problem.choices):
        missing[:, number] = gone[:, list(choice)].any(axis=1)
    assert not evaluation.feasible[missing].any()
    assert np.array_equal(np.isnan(evaluation.loss), missing)
    assert np.array_equal(np.isnan(evaluation.excess), missing)


@given(kinds, seeds)
def test_any_leading_shape_is_judged_alike(problem, seed):
    time_s, power_w = costs(problem, seed, modes=6)
    flat = problem.evaluate(time_s, power_w)
    deep = problem.evaluate(*(a.reshape(2, 3, -1) for a in (time_s, power_w)))
    one = problem.evaluate(time_s[4], power_w[4])
    for a, b, c in zip(flat, deep, one, strict=True):
        assert np.array_equal(a, b.reshape(a.shape)) and np.array_equal(a[4], c)


@given(seeds, st.floats(1.0, 3.0), st.booleans())
def test_a_faster_mode_never_trains_less(seed, faster, guard):
    problem = Concurrent(60.0, 40.0, 2.0, SIZES, guard=guard)
    time_s, power_w = costs(problem, seed)
    slow, fast = (problem.evaluate(t, power_w) for t in (time_s, time_s / faster))
    assert np.all(fast.loss <= slow.loss + 1e-9)
    assert np.all(fast.feasible >= slow.feasible)


@given(kinds, seeds)
def test_figures_keep_the_bounds_just_where_a_choice_is_feasible(problem, seed):
    time_s, power_w = costs(problem, seed, modes=4)
    evaluation = problem.evaluate(time_s, power_w)
    limits = {"power_w": "power_limit_w", "energy_j": "energy_limit_j", "latency_s": "latency_s"}
    for row, choice in np.argwhere(evaluation.feasible):
        figures = problem.figures(time_s[row], power_w[row], choice)
        for name, limit in limits.items():
            if name in figures and hasattr(problem, limit):
                assert figures[name] <= getattr(problem, limit) * (1 + 1e-6)
        assert figures.get("busy_share", 0) <= 1 + 1e-6
        assert figures.get("mean_power_w", 0) <= figures["power_w"] + 1e-9


def test_a_smaller_batch_can_train_faster_though_fewer_minibatches_fit_into_its_cycle():
    rate = Concurrent(30.0, 16.0, 2.0, (8, 16), guard=False)  # cycles of 0.5 and 1 s
    count = replace(rate, objective="count")
    times = {Job("train"): 0.2, Job("infer", 8): 0.08, Job("infer", 16): 0.25}
    time_s, power_w = np.array([[times[job] for job in rate.jobs]]), np.full((1, 3), 20.0)
    assert [rate.chosen_sizes(choice)["infer"] for choice in (0, 1)] == [16, 8]
    assert np.exp(-count.evaluate(time_s, power_w).loss[0]) == pytest.approx([3, 2])
    assert np.exp(-rate.evaluate(time_s, power_w).loss[0]) == pytest.approx([3, 4])
    assert best_of(count.evaluate(time_s, power_w)) == (0, 0)
    assert best_of(rate.evaluate(time_s, power_w)) == (0, 1)


def test_a_slot_that_just_fits_is_not_lost_to_rounding():
    problem = Concurrent(30.0, 30.0, 2.0, (1,), guard=False)
    train_s, infer_s = 0.001, 1 / 30 - 3 * 0.001
    assert (1 / 30 - infer_s) / train_s < 3  # in floating point
    evaluation = problem.evaluate(np.array([train_s, infer_s]), np.array([20.0, 20.0]))
    assert problem.value(evaluation.loss[0]) == pytest.approx(3 * 30)


def test_the_guard_counts_a_running_minibatch():
    time_s, power_w = np.array([0.2, 0.1]), np.array([20.0, 20.0])
    on = Concurrent(30.0, 10.0, 0.55, (4,))
    off = replace(on, guard=False)
    assert off.evaluate(time_s, power_w).feasible[0]
    assert not on.evaluate(time_s, power_w).feasible[0]
    assert on.figures(time_s, power_w, 0)["latency_s"] == pytest.approx(0.7)
    assert off.figures(time_s, power_w, 0)["latency_s"] == pytest.approx(0.5)


def test_an_energy_limit_takes_minibatches_out_of_the_cycle():
    time_s, power_w = np.array([0.1, 0.1]), np.array([20.0, 10.0])
    free = Concurrent(30.0, 10.0, 2.0, (4,), guard=False)
    bounded = replace(free, energy_limit_j=5.5)
    assert free.figures(time_s, power_w, 0)["minibatches"] == 3
    assert bounded.figures(time_s, power_w, 0)["minibatches"] == 2
    assert bounded.figures(time_s, power_w, 0)["energy_j"] == pytest.approx(5.0)
    assert not replace(free, energy_limit_j=2.9).evaluate(time_s, power_w).feasible[0]


def test_batches_that_fill_too_slowly_are_not_measured():
    problem = InferAlone(30.0, 16.0, 1.0, SIZES)
    assert problem.jobs == (Job("infer", 1), Job("infer", 4))  # 16 need all of the second
    assert InferAlone(30.0, 0.5, 1.0, SIZES).choices == ()
    assert Concurrent(30.0, 0.5, 1.0, SIZES).choices == ()


def test_shortfalls_are_relative_to_the_best():
    assert TrainAlone(30).shortfall(math.log(0.3), math.log(0.2)) == pytest.approx(0.5)
    rate = Concurrent(30.0, 10.0, 2.0, SIZES)
    assert rate.shortfall(-math.log(3), -math.log(4)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TrainAlone(0.0), "power_limit_w must be positive, got 0"),
        (lambda: TrainAlone(math.nan), "power_limit_w must be positive"),
        (lambda: InferAlone(30.0, -1.0, 1.0, SIZES), "rate_hz must be positive, got -1"),
        (lambda: InferAlone(30.0, 9.0, 1.0, (4, 1)), "ascending whole numbers"),
        (lambda: Concurrent(30.0, 9.0, 1.0, ()), "ascending whole numbers"),
        (lambda: Concurrent(30.0, 9.0, 1.0, SIZES, objective="most"), "one of rate, count"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(make, told):
    with pytest.raises(InvalidInput, match=told):
        make()


@given(kinds)
def test_a_problem_says_what_it_is(problem):
    assert f"within {problem.power_limit_w:g} W" in problem.describe()
    assert problem.goal
