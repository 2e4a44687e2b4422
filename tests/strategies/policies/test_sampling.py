from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.offers_of import rng
from wattfed.strategies.policies.sampling import smallest, weighted_sample


def test_chances_are_in_proportion_to_weights():
    drawn = [int(weighted_sample(np.array([1.0, 3.0]), 1, rng(i))[0]) for i in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.03)


def test_zero_weights_come_last_and_never_fail():
    weights = np.array([0.0, 0.0, 1.0, 0.0])
    assert 2 in weighted_sample(weights, 2, rng())
    assert len(set(weighted_sample(np.zeros(5), 3, rng()).tolist())) == 3
    assert weighted_sample(weights, 9, rng()).tolist() == [0, 1, 2, 3]


def test_smallest_is_empty_all_or_the_smallest():
    values = np.array([3.0, 1.0, 2.0])
    assert smallest(values, 0).tolist() == []
    assert smallest(values, 5).tolist() == [0, 1, 2]
    assert sorted(smallest(values, 2).tolist()) == [1, 2]
