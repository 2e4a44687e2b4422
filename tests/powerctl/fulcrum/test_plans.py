from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import Infeasible
from powerctl.fulcrum.plans import SWITCH_S, Front, cheapest, front_within
from powerctl.modes import ModeArrays
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import load_workload

SPACE = load_board("orin-agx").space
MAXN = SPACE.maximum


@st.composite
def fronts(draw):
    n = draw(st.integers(1, 6))
    steps = st.lists(st.floats(0.05, 1.0), min_size=n, max_size=n)
    time_s = np.cumsum(draw(steps))
    energy_j = np.cumsum(draw(steps))[::-1] * 10
    return Front(tuple(SPACE.mode(i) for i in range(n)), time_s, energy_j.copy())


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
