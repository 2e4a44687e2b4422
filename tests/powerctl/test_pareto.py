from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerctl.pareto import pareto_front, thinned

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


def test_a_tenth_more_time_saves_a_quarter_of_the_energy_on_the_measured_table(shared_table):
    # facts/powertrain.md: ResNet-18 saves 33 % energy for 7 to 8 % more time than MAXN
    table = shared_table("orin_agx_train_resnet18.csv")
    front = pareto_front(table.time_s, table.energy_j)
    saving = front[table.time_s[front] <= 1.1 * table.time_s.min()][-1]
    assert table.energy_j[saving] < 0.75 * table.energy_j[table.time_s.argmin()]
