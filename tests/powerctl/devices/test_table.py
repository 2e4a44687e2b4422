from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.devices.table import TableDevice
from powerctl.errors import ModeNotInSpace
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.workload import Workload

BOARD = load_board("orin-agx")
JOB = Workload("anything", "train", 16)


def test_it_replays_every_row_exactly(small_table):
    device = TableDevice(BOARD, small_table)
    for row in (0, 17, 255):
        device.apply(small_table.modes.mode(row))
        start_j = device.energy_j()
        assert device.execute(JOB) == small_table.time_s[row]
        assert device.energy_j() - start_j == pytest.approx(small_table.energy_j[row])


def test_batch_sizes_choose_the_row():
    mode = BOARD.space.maximum
    table = MeasurementTable.of([Measurement(mode, 0.1, 30, 1), Measurement(mode, 0.3, 40, 16)])
    device = TableDevice(BOARD, table)
    assert device.execute(JOB) == 0.3
    assert device.execute(JOB.with_batch_size(1)) == 0.1
    with pytest.raises(ModeNotInSpace, match="batch size 4"):
        device.execute(JOB.with_batch_size(4))


def test_a_mode_that_was_not_measured_cannot_be_applied(small_table):
    device = TableDevice(BOARD, small_table.take(np.arange(1, 256)))
    with pytest.raises(ModeNotInSpace, match="was not measured"):
        device.apply(small_table.modes.mode(0))
    with pytest.raises(ModeNotInSpace, match="not a value"):
        device.apply(BOARD.space.mode(5))
