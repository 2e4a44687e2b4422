"""Summaries of updates: norms are right, sketches keep angles, and buffers are not in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattfed.strategies.round.updates import GlobalModel
from wattfed.strategies.summaries import PLACES, UpdateSummary, summary_of

N = 20_000


def drawn(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def sketched(change: np.ndarray) -> UpdateSummary:
    return summary_of([change], change.size)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_the_norm_is_that_of_all_parameters():
    change = drawn(0)
    assert sketched(change).norm == pytest.approx(np.linalg.norm(change.astype(float)), rel=1e-12)


@given(cuts=st.lists(st.integers(0, N), max_size=4))
def test_a_sketch_does_not_depend_on_how_a_model_is_cut_into_arrays(cuts):
    change = drawn(1)
    parts = np.split(change, sorted(cuts))
    cut, whole = summary_of(parts, N), sketched(change)
    np.testing.assert_allclose(cut.sketch, whole.sketch, rtol=1e-9, atol=1e-9)


def test_sketches_are_linear_and_each_parameter_has_one_place():
    one, other = drawn(2), drawn(3)
    both = sketched(one + 2 * other)
    np.testing.assert_allclose(
        both.sketch, sketched(one).sketch + 2 * sketched(other).sketch, atol=1e-4
    )
    for place in (0, 1, N - 1):
        alone = np.zeros(N, np.float32)
        alone[place] = 3.0
        sketch = sketched(alone).sketch
        assert np.count_nonzero(sketch) == 1 and abs(sketch).max() == 3.0


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_sketches_keep_the_angle_between_updates(shared):
    one, rest = drawn(4), drawn(5)
    other = shared * one + np.sqrt(1 - shared**2).astype(np.float32) * rest
    found = cosine(sketched(one).sketch, sketched(other).sketch)
    assert found == pytest.approx(cosine(one, other), abs=3 * np.sqrt(2 / PLACES))


def test_a_model_larger_than_a_chunk_is_summed_whole():
    change = np.full(150_000, 2.0, np.float32)
    assert sketched(change).norm == pytest.approx(2 * np.sqrt(150_000))
    assert abs(sketched(change).sketch).sum() > 0
    assert np.square(sketched(change).sketch).sum() == pytest.approx(4 * 150_000, rel=0.3)


def test_buffers_are_not_in_a_summary():
    numbers = {"weight": drawn(6).reshape(-1, 10), "mean": drawn(7, 10), "seen": np.array(3)}
    base = GlobalModel(numbers, frozenset({"weight"}))
    moved = {"weight": numbers["weight"] + 1, "mean": numbers["mean"] + 9, "seen": np.array(4)}
    assert base.summary(moved).norm == pytest.approx(np.sqrt(N), rel=1e-4)
    as_it_was = {**moved, "weight": numbers["weight"]}
    assert base.summary(as_it_was).norm == 0 and not base.summary(as_it_was).sketch.any()


def test_a_model_without_parameters_has_an_empty_summary():
    assert GlobalModel({"seen": np.array(3)}).summary({"seen": np.array(4)}).norm == 0
