from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattfed.client.fleet.availability import MeanTimes, Renewal

N = 40
clocks = st.lists(st.floats(0, 5e4), min_size=1, max_size=6)
everyone = np.arange(N)


def times(on_s=3000.0, off_s=1000.0, n=N):
    return MeanTimes(np.full(n, on_s), np.full(n, off_s))


@given(clocks, st.integers(0, 3), st.permutations(range(N)), st.integers(1, N))
def test_the_answer_is_the_same_for_one_or_all_and_in_any_order(asked_s, seed, order, some):
    """Whatever was asked before, of whomever, also after the clock went back."""
    whole, few = Renewal(times(), seed), Renewal(times(), seed)
    rows = np.array(order[:some])
    for clock_s in asked_s:
        here, until_s = whole.at(everyone, clock_s)
        assert (until_s > clock_s).all()
        again = few.at(rows, clock_s)
        assert np.array_equal(again.here, here[rows])
        assert np.array_equal(again.until_s, until_s[rows])


@given(st.floats(100, 10_000), st.floats(100, 10_000), st.floats(0, 1e5))
@settings(max_examples=settings.default.max_examples // 2)
def test_clients_are_there_for_the_share_of_the_mean_times(on_s, off_s, clock_s):
    n = 20_000
    here, until_s = Renewal(times(on_s, off_s, n), 0).at(np.arange(n), clock_s)
    share = on_s / (on_s + off_s)
    assert here.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / n))
    assert (until_s - clock_s)[here].mean() == pytest.approx(on_s, rel=6 / np.sqrt(here.sum()))


def test_presence_holds_until_it_changes_and_then_it_has_changed():
    renewal = Renewal(times(), 1)
    now = renewal.at(everyone, 0.0)
    for row in everyone:
        one = np.array([row])
        before, after = (renewal.at(one, now.until_s[row] + shift) for shift in (-1e-3, 0.0))
        assert before.here[0] == now.here[row] != after.here[0]


def test_seeds_differ_and_who_never_goes_is_always_there():
    first, second = (Renewal(times(), seed).at(everyone, 500.0).until_s for seed in (0, 1))
    assert not np.isclose(first, second).any()
    here, until_s = Renewal(times(on_s=np.inf), 0).at(everyone, 1e7)
    assert here.all() and np.isinf(until_s).all()
