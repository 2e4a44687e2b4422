from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattfed.client.fleet.battery import Batteries, Levels

ALL = np.arange(3)


def batteries(**table):
    return Batteries.read({"capacity_j": 1000.0, "draw_w": 1.0, **table}, 3)


hours = st.integers(0, 24)


@given(
    st.floats(0, 1),
    st.floats(0, 5),
    st.floats(0, 5),
    hours,
    hours,
    st.lists(st.tuples(st.floats(0, 40_000), st.floats(0, 600)), max_size=8),
)
def test_a_battery_is_never_below_empty_nor_above_full(start, draw_w, charge_w, first, last, use):
    table = {"start": start, "draw_w": draw_w, "charge_w": charge_w, "charge_hours": [first, last]}
    levels = Levels(batteries(**table), ALL, 0.0)
    clock_s = 0.0
    for wait_s, spent_j in use:
        clock_s += wait_s
        before_j = levels.at(ALL, clock_s)
        assert (before_j >= 0).all() and (before_j <= 1000).all()
        levels.keep(1, max(0.0, before_j[1] - spent_j), clock_s)
        assert levels.at(ALL, clock_s)[0] == before_j[0]


@given(st.lists(st.floats(0, 200_000), max_size=10), st.floats(0, 200_000))
def test_how_often_one_asks_changes_nothing(asked_s, clock_s):
    columns = batteries(start=0.3, charge_w=2.0, charge_hours=[22, 6], draw_w=[0.01, 0.5, 1.9])
    often, once = Levels(columns, ALL, 0.0), Levels(columns, ALL, 0.0)
    for earlier_s in sorted(s for s in asked_s if s <= clock_s):
        often.at(ALL[:2], earlier_s)
    assert np.array_equal(often.at(ALL, clock_s), once.at(ALL, clock_s))
    start_j = columns.start_j(ALL)
    direct_j = columns.level_j(ALL, start_j, np.zeros(3), clock_s)
    assert np.array_equal(direct_j, once.at(ALL, clock_s))


def test_it_charges_in_its_hours_and_is_drawn_on_all_day():
    columns = batteries(start=0.5, charge_w=1.25, charge_hours=[23, 1], draw_w=0.05)
    levels = Levels(columns, ALL, 22.5 * 3600)
    level_j = [levels.at(ALL, hour * 3600.0)[0] for hour in (22.75, 23, 23.1, 26)]
    assert level_j[:3] == pytest.approx([455, 410, 410 + 360 * 1.2])
    assert level_j[3] == pytest.approx(1000 - 3600 * 0.05)  # full by 1 o'clock


def test_on_mains_there_is_no_end_and_no_reserve():
    mains = Batteries.read({}, 3)
    assert np.isinf(Levels(mains, ALL, 0.0).at(ALL, 1e6)).all()
    assert not mains.reserve_j(ALL).any()
    assert batteries(reserve=0.2).reserve_j(ALL).tolist() == [200, 200, 200]
