from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.guard import HEAT, POWER, Guard, GuardLimits, Ladder, PowerGuard
from powerctl.fulcrum.plans import Front, Segment

SPACE = load_board("orin-agx").space
MODES = tuple(SPACE.parse(text) for text in ("maxn", "12c/1497/828/3199", "8c/1190/420/2133"))
FRONT = Front(MODES, np.array([0.10, 0.15, 0.30]), np.array([4.0, 3.0, 3.0]))  # 40, 20, 10 W
LADDER = Ladder(SPACE, FRONT)

watts = st.floats(0.5, 100)
periods = st.floats(0.002, 3)


def guard(power_w=30.0, ladder=LADDER, mode=MODES[0], **limits):
    made = PowerGuard(GuardLimits(power_w, **limits), ladder)
    made.hold(mode, 0.0)
    return made


def run(one, power_w, until_s, period_s=0.05, excess_c=-10.0, start=(0.0, 0.0)):
    """Let time pass at a constant power; the first step down and when, or None."""
    time_s, energy_j = start
    while time_s < until_s:
        time_s, energy_j = time_s + period_s, energy_j + power_w * period_s
        lower = one.observe(time_s, energy_j, excess_c)
        if lower is not None:
            return lower, time_s, energy_j
    return None


@given(st.lists(st.tuples(periods, st.floats(0, 30)), max_size=200))
def test_power_within_the_limit_is_never_stepped_down(history):
    one, time_s, energy_j = guard(30.0), 0.0, 0.0
    for period_s, power_w in history:
        time_s, energy_j = time_s + period_s, energy_j + period_s * power_w * (1 - 1e-9)
        assert one.observe(time_s, energy_j) is None
    assert one.steps == 0 and one.cause == "" and one.admit(MODES[0]) == MODES[0]


@given(st.floats(30.1, 200), periods)
def test_power_above_it_is_stepped_down_within_settling_and_window(power_w, period_s):
    one = guard(30.0)
    lower, time_s, _ = run(one, power_w, 100.0, period_s)
    assert 2.0 <= time_s <= 2.0 * 1.125 + 2 * period_s
    assert lower != MODES[0] and one.steps == 1 and one.cause == POWER


@given(st.floats(0.05, 0.45), st.floats(1, 25))
def test_a_burst_that_a_window_bears_is_no_reason(burst_s, excess_w):
    """10 W below the limit otherwise: a mean over a second stays below for a short burst."""
    one, time_s, energy_j = guard(30.0), 0.0, 0.0
    while time_s < 8.0:
        high = 4.0 <= time_s < 4.0 + burst_s
        power_w = 30 + excess_w if high else 20.0
        time_s, energy_j = time_s + 0.01, energy_j + 0.01 * power_w
        stepped = one.observe(time_s, energy_j)
        bears = (burst_s + 0.01) * (10 + excess_w) < 10.0
        assert stepped is None or not bears
        if stepped is not None:
            return


@pytest.mark.parametrize(("power_w", "expected"), [(40.0, 1), (70.0, 2)])
def test_along_a_front_it_goes_at_once_to_the_mode_that_should_do(power_w, expected):
    """Measured 70 W where 40 were expected: 20 would be 35, still too much, 10 would do."""
    assert run(guard(30.0), power_w, 10.0)[0] == MODES[expected]


def test_after_a_step_power_may_settle_before_it_is_judged_again():
    one = guard(30.0)
    lower, time_s, energy_j = run(one, 40.0, 10.0)
    one.hold(lower, time_s)
    calm = run(one, 60.0, time_s + 0.9, start=(time_s, energy_j))
    assert calm is None, "of the mode before"
    energy_j += 0.9 * 60.0
    assert run(one, 20.0, time_s + 20, start=(time_s + 0.9, energy_j)) is None


def test_below_the_front_it_goes_on_through_the_space_to_the_lowest_mode_and_then_stays():
    one, mode = guard(1.0), MODES[0]
    time_s, energy_j, seen = 0.0, 0.0, [mode]
    while (stepped := run(one, 50.0, time_s + 10, start=(time_s, energy_j))) is not None:
        mode, time_s, energy_j = stepped
        one.hold(mode, time_s)
        seen.append(mode)
    assert mode == SPACE.minimum and one.steps == len(seen) - 1
    for upper, lower in pairwise(seen):
        assert upper != lower
        assert all(b <= a for a, b in zip(upper.values, lower.values, strict=True))


@given(st.integers(0, len(SPACE) - 1), st.floats(0.01, 1))
def test_a_step_in_the_space_raises_no_axis_and_lowers_one(number, share):
    mode = SPACE.mode(number)
    lower = Ladder(SPACE).below(mode, share)
    if lower is None:
        assert mode == SPACE.minimum
        return
    assert lower in SPACE and lower != mode
    assert all(b <= a for a, b in zip(mode.values, lower.values, strict=True))
    if lower.cpu_khz > SPACE.cpu_khz[0] and lower.gpu_hz > SPACE.gpu_hz[0] and share < 0.7:
        assert lower.cpu_khz <= share * mode.cpu_khz and lower.gpu_hz <= share * mode.gpu_hz
    assert Ladder(SPACE).reaches(lower, mode) and not Ladder(SPACE).reaches(mode, lower)


def test_heat_that_lasts_steps_once_and_then_waits_for_the_board_to_cool():
    one = guard(math.inf)
    lower, time_s, energy_j = run(one, 20.0, 30.0, excess_c=0.5)
    assert lower == MODES[1] and one.cause == HEAT and 2.0 <= time_s < 2.4
    one.hold(lower, time_s)
    second = run(one, 20.0, 60.0, excess_c=0.5, start=(time_s, energy_j))
    assert second[0] == MODES[2] and 11.0 <= second[1] - time_s < 11.4
    assert run(guard(math.inf), 20.0, 30.0, excess_c=0.0) is None, "at the limit is within it"


def test_heat_that_passes_is_no_reason():
    one, energy_j = guard(math.inf), 0.0
    for tick in range(200):
        energy_j += 1.0
        assert one.observe(0.05 * tick, energy_j, 2.0 if tick % 10 < 8 else -1.0) is None


def test_what_was_stepped_down_stays_so_for_the_segments_that_follow():
    one = guard(30.0)
    assert one.admit(MODES[0]) == MODES[0]
    lower = run(one, 40.0, 10.0)[0]
    assert lower == MODES[1]
    assert [one.admit(mode) for mode in MODES] == [MODES[1], MODES[1], MODES[2]]
    below = SPACE.minimum
    assert one.admit(below) == below


def test_what_is_left_is_expected_to_cost_what_the_front_says_or_a_bound():
    segment = Segment(MODES[0], 50, 0.10, 4.0)
    assert LADDER.instead(segment, MODES[1], 20) == Segment(MODES[1], 20, 0.15, 3.0)
    slow = SPACE.parse("12c/2201/624/3199")
    bound = LADDER.instead(segment, slow, 20)
    assert bound.mode == slow and bound.minibatches == 20
    assert bound.time_s == pytest.approx(0.10 * 1300.5 / 624.75) and bound.energy_j > 4.0


def test_it_looks_some_times_a_window_and_not_while_power_settles():
    one = guard(30.0)
    assert not one.is_due(0.99) and one.is_due(1.0)
    one.observe(1.0, 20.0)
    assert not one.is_due(1.1) and one.is_due(1.13)
    assert len(one._looks) == 1
    for tick in range(5000):
        one.observe(1.0 + 0.001 * tick, 20.0 + 0.02 * tick)
    assert len(one._looks) < 12, "whatever the minibatches' number"


def test_without_a_limit_nothing_is_looked_at():
    none = Guard(SPACE)
    none.hold(MODES[0], 0.0)
    assert not none.is_due(1e9) and none.observe(1e9, 1e12, 99.0) is None
    assert none.admit(MODES[0]) == MODES[0] and (none.steps, none.cause) == (0, "")


@pytest.mark.parametrize(
    "bad", [{"power_w": 0}, {"power_w": math.nan}, {"window_s": 0}, {"settling_s": -1}]
)
def test_a_guard_of_nothing_is_refused(bad):
    with pytest.raises(InvalidInput):
        GuardLimits(**bad)
