"""Tests of seeds that are drawn in one go."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from powerctl.seeding import seeds_of


@given(
    whole=st.lists(st.integers(0, 2**80), max_size=5),
    parts=st.lists(st.integers(0, 2**32 - 1), max_size=5),
)
def test_seeds_are_those_that_numpy_draws_one_by_one(whole, parts):
    one_by_one = [
        int(np.random.SeedSequence((*whole, part)).generate_state(1)[0]) for part in parts
    ]
    assert seeds_of(tuple(whole), np.array(parts, dtype=np.int64)) == one_by_one
