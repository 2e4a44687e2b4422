from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import SWITCH_S, TIME_RESERVE, FixedMode, Front
from tests.powerctl.fulcrum.test_plans import MAXN, exhaustive_j, fronts
from wattfed.strategies.protocol import RoundAssignment, RoundOffer, plan_round

PRESET = load_board("orin-agx").preset("30W").mode


def offer(front, allowance_j=math.inf, transfer_s=0.0, decline=""):
    held = FixedMode(MAXN, 0.01, 99.0), FixedMode(PRESET, 0.5, 20.0)
    return RoundOffer(0, 1, 100, 10, 1.0, front, *held, 5.0, transfer_s, allowance_j, decline)


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


@pytest.mark.parametrize(
    "bad",
    [{"minibatches": 0}, {"deadline_s": 0.0}, {"energy_cap_j": -1.0}, {"power": "turbo"}],
)
def test_an_assignment_asks_for_something_possible(bad):
    with pytest.raises(InvalidInput):
        RoundAssignment(**{"client": 0, "minibatches": 5, **bad})
