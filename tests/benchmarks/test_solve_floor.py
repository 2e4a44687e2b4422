from __future__ import annotations

import numpy as np
import pytest

from benchmarks.configurations import published_modes
from benchmarks.solve_floor import floor
from powerctl.boards import load_board
from tests.powerctl.fulcrum.conftest import twin_table

BOARD = load_board("orin-agx")


@pytest.mark.studies
def test_only_a_row_that_no_other_expects_is_lost(tmp_path):
    """The slowest mode runs as fast as the fastest: who goes by the others never looks there."""
    table = twin_table("resnet18-train", published_modes(BOARD))
    path = tmp_path / "train.csv"
    table.write(path)
    assert _loss_pct(path) < 0.5
    table.time_s[np.argmax(table.time_s)] = 0.8 * table.time_s.min()
    table.write(path)
    assert _loss_pct(path) > 15


def _loss_pct(path):
    as_it_is, _ = floor(str(path), None, BOARD, 4, 50)
    return as_it_is["loss_mean_pct"]
