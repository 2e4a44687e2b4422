from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import Infeasible, InvalidInput
from powerctl.modes import ModeArrays
from powerctl.powertrain.prediction import Prediction
from powerctl.powertrain.signature import SignaturePredictor
from powerctl.rounds import (
    SWITCH_S,
    TIME_RESERVE,
    Front,
    Held,
    Limits,
    RoundAssignment,
    RoundOffer,
    cheapest,
    front_within,
    plan_round,
)
from powerctl.workload import load_workload

SPACE = load_board("orin-agx").space
MAXN = SPACE.maximum
PRESET = load_board("orin-agx").preset("30W").mode


@st.composite
def fronts(draw):
    n = draw(st.integers(1, 6))
    steps = st.lists(st.floats(0.05, 1.0), min_size=n, max_size=n)
    time_s = np.cumsum(draw(steps))
    energy_j = np.cumsum(draw(steps))[::-1] * 10
    return Front(tuple(SPACE.mode(i) for i in range(n)), time_s, energy_j.copy())


def offer(front, allowance_j=math.inf, transfer_s=0.0, decline=""):
    held = Held(MAXN, 0.01, 99.0), Held(PRESET, 0.5, 20.0)
    return RoundOffer(0, 100, 10, 1.0, front, *held, 5.0, transfer_s, allowance_j, decline)


def exhaustive_j(front, n, deadline_s):
    """The least energy of all mixes of at most two points."""
    best = math.inf
    for i in range(len(front)):
        for j in range(i, len(front)):
            for k in range(n + 1):
                switch = i != j and 0 < k < n
                time_s = k * front.time_s[i] + (n - k) * front.time_s[j] + switch * SWITCH_S
                switch_j = switch * SWITCH_S * front.power_w[i]
                if time_s <= deadline_s + 1e-12:
                    energy_j = k * front.energy_j[i] + (n - k) * front.energy_j[j] + switch_j
                    best = min(best, energy_j)
    return best


@given(fronts(), st.integers(1, 12), st.floats(0.01, 20))
def test_the_cheapest_plan_is_the_cheapest_of_all_mixes(front, n, deadline_s):
    best_j = exhaustive_j(front, n, deadline_s)
    if math.isinf(best_j):
        with pytest.raises(Infeasible, match="at least"):
            cheapest(front, n, deadline_s)
        return
    plan = cheapest(front, n, deadline_s)
    assert plan.minibatches == n
    assert plan.time_s <= deadline_s * (1 + 1e-9)
    assert plan.energy_j == pytest.approx(best_j)


def test_entering_a_mode_other_than_the_one_found_costs_a_switch():
    front = Front((MAXN, SPACE.mode(0)), np.array([1.0, 1.01]), np.array([20.0, 19.9]))
    short, long = (cheapest(front, n, 1e3, found=MAXN, idle_power_w=5.0) for n in (2, 30))
    assert short.segments[0].mode == MAXN and short.enter_s == 0
    assert long.segments[0].mode == SPACE.mode(0)
    assert long.time_s == pytest.approx(30 * 1.01 + SWITCH_S)
    assert long.energy_j == pytest.approx(30 * 19.9 + 5.0 * SWITCH_S)


@given(fronts(), st.integers(1, 30), st.floats(0.1, 30), st.floats(0.1, 100), st.floats(0, 2))
def test_a_plan_never_overdraws_and_does_the_most_work_that_fits(
    front, wanted, deadline_s, allowance_j, transfer_s
):
    assignment = RoundAssignment(0, wanted, deadline_s)
    plan = plan_round(offer(front, allowance_j, transfer_s), assignment)
    usable_s = (deadline_s - transfer_s) * (1 - TIME_RESERVE)
    assert plan.energy_j <= allowance_j
    assert plan.time_s <= max(usable_s, 0) * (1 + 1e-9)
    assert bool(plan.decline) == (plan.minibatches == 0)
    if plan.minibatches < wanted:
        more = plan.minibatches + 1
        enter_j = 5.0 * SWITCH_S  # from MAXN, at idle power
        assert exhaustive_j(front, more, usable_s - SWITCH_S) + enter_j > allowance_j * (1 - 1e-9)


@given(fronts(), st.integers(1, 30))
def test_fastest_is_the_first_point_and_maxn_is_blind(front, wanted):
    fastest = plan_round(offer(front), RoundAssignment(0, wanted, power="fastest"))
    assert [s.mode for s in fastest.segments] == [front.modes[0]]
    blind = RoundAssignment(0, wanted, deadline_s=1e-3, power="maxn")
    plan = plan_round(offer(front, 0.0, decline="no"), blind)
    assert [(s.mode, s.minibatches) for s in plan.segments] == [(MAXN, wanted)]


@given(fronts(), st.integers(1, 30), st.floats(0.1, 30), st.floats(1, 700))
def test_a_preset_is_held_whatever_else_would_be_cheaper_within_the_same_limits(
    front, wanted, deadline_s, allowance_j
):
    assignment = RoundAssignment(0, wanted, deadline_s, power="preset")
    plan = plan_round(offer(front, allowance_j), assignment)
    usable_s = deadline_s * (1 - TIME_RESERVE) - SWITCH_S  # it is found at MAXN
    fits = int(min(usable_s / 0.5, (allowance_j - SWITCH_S * 5.0) / 20.0) + 1e-9)
    assert [(s.mode, s.minibatches) for s in plan.segments] == (
        [(PRESET, min(fits, wanted))] if fits > 0 else []
    )
    assert bool(plan.decline) == (fits <= 0)
    declined = plan_round(offer(front, decline="no"), assignment)
    assert declined.decline == "no" and not declined.segments


def test_a_decline_of_the_offer_is_a_decline_of_the_plan():
    empty = Front((), np.zeros(0), np.zeros(0))
    plan = plan_round(offer(empty, decline="too hot"), RoundAssignment(0, 5))
    assert plan.decline == "too hot" and plan.minibatches == 0 == plan.energy_j


@given(st.floats(7, 60))
def test_a_front_stays_within_the_limit_with_its_safety(limit_w):
    predictor = SignaturePredictor(load_board("orin-agx"), load_workload("resnet18-train"))
    prediction = predictor.predict(SPACE.arrays)
    front = front_within(SPACE.arrays, prediction, limit_w)
    assert len(front) <= 12
    assert np.all(front.power_w * np.exp(3 * prediction.power_std[0]) <= limit_w * (1 + 1e-9))
    assert np.all(np.diff(front.time_s) > 0) and np.all(np.diff(front.energy_j) < 0)
    if not len(front):
        assert prediction.power_bound_w(3).min() > limit_w


def test_the_front_of_one_mode_is_that_mode():
    one = Prediction(*(np.array([x]) for x in (0.1, 20.0, 0.0, 0.0)))
    front = front_within(ModeArrays.of([MAXN]), one, 20.0)
    assert front.modes == (MAXN,) and front.energy_j == pytest.approx([2.0])


def test_the_allowance_is_the_tighter_of_round_and_run():
    limits = Limits(energy_budget_j=100, round_energy_j=30)
    assert [limits.allowance_j(spent) for spent in (0, 80, 100, 120)] == [30, 20, 0, 0]
    assert Limits().allowance_j(1e9) == math.inf


@pytest.mark.parametrize(
    "bad", [{"power_w": 0}, {"energy_budget_j": -5}, {"round_energy_j": math.nan}]
)
def test_limits_must_be_positive(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        Limits(**bad)


@pytest.mark.parametrize(
    "bad",
    [{"minibatches": 0}, {"deadline_s": 0.0}, {"energy_cap_j": -1.0}, {"power": "turbo"}],
)
def test_an_assignment_asks_for_something_possible(bad):
    with pytest.raises(InvalidInput):
        RoundAssignment(**{"client": 0, "minibatches": 5, **bad})
