"""The benchmark of learning in idle time, on one twin."""

import pytest

from benchmarks.idle import accuracy


@pytest.mark.studies
def test_measured_modes_predict_better_than_counts_and_their_cost_is_told():
    rows = {row.after: row for row in accuracy("orin-nano", ["lstm"], 1, (2, 6))}
    assert [*rows] == ["counts", "2 modes", "6 modes", "5 rounds"]
    learned = rows["6 modes"]
    assert learned.modes == 6 and learned.time_mape < 0.5 * rows["counts"].time_mape
    assert 0 < rows["2 modes"].spent_s < learned.spent_s < 1800
    assert 0 < rows["2 modes"].spent_j < learned.spent_j < 20_000
    assert all(0 < row.time_coverage <= 100 for row in rows.values())
