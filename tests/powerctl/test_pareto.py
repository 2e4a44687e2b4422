from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.errors import Infeasible, InvalidInput
from powerctl.pareto import (
    fastest_within,
    least_energy_within,
    pareto_front,
    thinned,
)

# few distinct values, so that ties occur
points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40).map(
    lambda pairs: np.array(pairs, dtype=float).T
)


def beats(a, b, i, j):
    return a[i] <= a[j] and b[i] <= b[j] and (a[i] < a[j] or b[i] < b[j])


@given(points)
def test_the_front_is_what_nothing_beats(pair):
    time_s, cost = pair
    front = pareto_front(time_s, cost)
    n = len(time_s)
    for j in range(n):
        beaten = any(beats(time_s, cost, i, j) for i in range(n))
        same = any(time_s[i] == time_s[j] and cost[i] == cost[j] for i in front)
        assert same != beaten
    assert np.all(np.diff(time_s[front]) > 0) and np.all(np.diff(cost[front]) < 0)


@given(points, st.integers(2, 6))
def test_a_thinned_front_keeps_its_ends(pair, n):
    front = pareto_front(*pair)
    fewer = thinned(front, pair[0], n)
    assert len(fewer) <= n
    assert {fewer[0], fewer[-1]} == {front[0], front[-1]}
    assert set(fewer) <= set(front)


@given(points, st.floats(0.5, 10))
def test_the_fastest_within_a_limit_is_the_fastest_within_it(pair, limit_w):
    time_s, power_w = pair
    within = power_w <= limit_w
    if not within.any():
        with pytest.raises(Infeasible, match=f"least there is: {power_w.min():.3g} W"):
            fastest_within(time_s, power_w, limit_w)
        return
    best = fastest_within(time_s, power_w, limit_w)
    assert within[best] and time_s[best] == time_s[within].min()
    ties = within & (time_s == time_s[best])
    assert power_w[best] == power_w[ties].min()


@given(points, st.floats(0.5, 10))
def test_the_least_energy_within_a_deadline_is_that(pair, deadline_s):
    time_s, power_w = pair
    within = time_s <= deadline_s
    if not within.any():
        with pytest.raises(Infeasible, match="shortest there is"):
            least_energy_within(time_s, power_w, deadline_s)
        return
    best = least_energy_within(time_s, power_w, deadline_s)
    assert within[best]
    assert time_s[best] * power_w[best] == (time_s * power_w)[within].min()


@pytest.mark.parametrize("bound", [0.0, -3.0, float("nan")])
def test_a_bound_must_be_positive(bound):
    time_s = power_w = np.ones(3)
    with pytest.raises(InvalidInput):
        fastest_within(time_s, power_w, bound)
    with pytest.raises(InvalidInput):
        least_energy_within(time_s, power_w, bound)


def test_a_tenth_more_time_saves_a_quarter_of_the_energy_on_the_measured_table(shared_table):
    # facts/powertrain.md: ResNet-18 saves 33 % energy for 7 to 8 % more time than MAXN
    table = shared_table("orin_agx_train_resnet18.csv")
    saving = least_energy_within(table.time_s, table.power_w, 1.1 * table.time_s.min())
    fastest = table.time_s.argmin()
    assert table.energy_j[saving] < 0.75 * table.energy_j[fastest]
    assert table.time_s[saving] <= 1.1 * table.time_s[fastest]
