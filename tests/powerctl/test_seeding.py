"""Tests of seeds and generators that are drawn in one go."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerctl.seeding import generators_of, seeds_of

words = st.integers(0, 2**32 - 1)


@given(whole=st.lists(st.integers(0, 2**80), max_size=5), parts=st.lists(words, max_size=5))
def test_seeds_are_those_that_numpy_draws_one_by_one(whole, parts):
    one_by_one = [np.random.SeedSequence((*whole, part)).generate_state(1)[0] for part in parts]
    assert seeds_of(tuple(whole), parts) == one_by_one


@given(pairs=st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_generators_are_those_that_numpy_makes_one_by_one(pairs):
    seeds, parts = zip(*pairs, strict=True)
    one_by_one = [np.random.default_rng(pair).standard_normal(3).tolist() for pair in pairs]
    assert [g.standard_normal(3).tolist() for g in generators_of(seeds, parts)] == one_by_one
