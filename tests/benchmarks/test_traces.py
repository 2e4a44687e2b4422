"""Traces have the rates asked for, ascend, and are of their seed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.traces import bursts, constant, diurnal, poisson, steps
from powerctl.errors import InvalidInput


def rng(seed=0):
    return np.random.default_rng(seed)


TRACES = {
    "constant": lambda seed: constant(50, 200),
    "poisson": lambda seed: poisson(50, 200, rng(seed)),
    "steps": lambda seed: steps([(25, 100), (75, 100)], rng(seed)),
    "diurnal": lambda seed: diurnal(50, 0.8, 50, 200, rng(seed)),
    "bursts": lambda seed: bursts(50, 4, 2, 6, 200, rng(seed)),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_ascends_within_its_length_at_its_mean_rate(name):
    times = np.array(list(TRACES[name](0)))
    assert times[0] > 0 and times[-1] <= 200 and (np.diff(times) > 0).all()
    assert len(times) / 200 == pytest.approx(50, rel=0.15)


@pytest.mark.parametrize("name", [name for name in TRACES if name != "constant"])
def test_chance_is_of_the_seed(name):
    first, again, other = (list(TRACES[name](seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_constant_requests_are_evenly_spaced():
    assert list(constant(10, 0.3, start_s=5)) == pytest.approx([5.1, 5.2, 5.3])


def test_poisson_counts_are_as_spread_as_their_mean():
    counts = np.bincount(np.array(list(poisson(20, 500, rng()))).astype(int))
    assert counts.var() == pytest.approx(counts.mean(), rel=0.2)


def test_steps_change_the_rate_at_once():
    times = np.array(list(steps([(20, 100), (80, 100)], rng())))
    assert (times < 100).sum() == pytest.approx(2000, rel=0.1)
    assert (times >= 100).sum() == pytest.approx(8000, rel=0.1)


def test_a_day_rises_before_it_falls():
    times = np.array(list(diurnal(50, 0.8, 200, 200, rng())))
    assert (times < 100).sum() == pytest.approx(50 * 100 * (1 + 0.8 * 2 / np.pi), rel=0.05)
    assert len(times) == pytest.approx(10_000, rel=0.05)


def test_bursts_make_counts_more_spread_than_their_mean():
    counts = np.bincount(np.array(list(bursts(50, 5, 5, 15, 400, rng()))).astype(int))
    assert counts.var() > 5 * counts.mean()


@pytest.mark.parametrize(
    "make",
    [
        lambda: constant(0, 10),
        lambda: poisson(10, -1, rng()),
        lambda: steps([(10, 0)], rng()),
        lambda: bursts(10, 0, 1, 1, 10, rng()),
        lambda: bursts(10, 2, 0, 1, 10, rng()),
    ],
)
def test_a_trace_without_rate_or_length_is_refused(make):
    with pytest.raises(InvalidInput, match="a positive rate and length"):
        list(make())


def test_a_swing_beyond_its_mean_is_refused():
    with pytest.raises(InvalidInput, match="from 0 to 1, got 1.5"):
        diurnal(10, 1.5, 10, 10, rng())
