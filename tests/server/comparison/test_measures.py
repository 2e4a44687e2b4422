from __future__ import annotations

import pytest

from wattfed.server.comparison.measures import jain_index


@pytest.mark.parametrize(
    ("shares", "index"),
    [([3, 3, 3, 3], 1.0), ([5, 0, 0, 0], 0.25), ([1, 3], 0.8), ([0, 0], 0.0), ([], 0.0)],
)
def test_fairness_is_one_where_all_take_part_alike_and_one_nth_where_one_does_all(shares, index):
    assert jain_index(shares) == pytest.approx(index)
