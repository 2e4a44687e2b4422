from __future__ import annotations

from random import Random

import numpy as np
import pytest

from wattfed.client.tasks.label_noise import private_counts


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_the_noise_is_discrete_laplace(epsilon):
    noise = private_counts(np.zeros(40_000), epsilon, Random(0))
    assert np.array_equal(noise, np.round(noise))
    alpha = np.exp(-epsilon)
    for value in (-1, 0, 1, 2):
        chance = (1 - alpha) / (1 + alpha) * alpha ** abs(value)
        assert (noise == value).mean() == pytest.approx(chance, abs=0.01)
    assert noise.var() == pytest.approx(2 * alpha / (1 - alpha) ** 2, rel=0.05)


def test_one_example_more_changes_no_chance_by_more_than_epsilon():
    counts = np.zeros(200_000)
    of_few, of_more = (private_counts(counts + n, 0.5, Random(n)) for n in (3, 4))
    for told in range(0, 8):
        ratio = np.log((of_few == told).mean() / (of_more == told).mean())
        assert abs(ratio) < 0.5 + 0.1


def test_by_default_nobody_can_draw_it_again():
    counts = np.full(100, 7.0)
    assert not np.array_equal(private_counts(counts, 0.1), private_counts(counts, 0.1))
