from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import PowerMode

HEADER = "cores,cpu_khz,gpu_hz,mem_hz,time_ms,power_w"
ROW = "4,422400,114750000,665600000"
AGX = load_board("orin-agx").space


def write(tmp_path, *lines):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_was_written_is_read(small_table, small_csv):
    again = MeasurementTable.read(small_csv, AGX)
    np.testing.assert_allclose(again.time_s, small_table.time_s, rtol=1e-5)
    np.testing.assert_allclose(again.power_w, small_table.power_w, rtol=1e-5)
    assert again.modes.mode(7) == small_table.modes.mode(7)
    assert again.batch_size is None


def test_batch_sizes_travel_along(tmp_path):
    mode = AGX.maximum
    table = MeasurementTable.of([Measurement(mode, 0.1, 30.0, 1), Measurement(mode, 0.2, 31.0, 4)])
    table.write(tmp_path / "infer.csv")
    again = MeasurementTable.read(tmp_path / "infer.csv")
    assert again.batch_size.tolist() == [1, 4]
    assert again[1] == Measurement(mode, 0.2, 31.0, 4)
    assert again.energy_j == pytest.approx([3.0, 6.2])


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    path = write(tmp_path, "note,power_w,time_ms,mem_hz,gpu_hz,cpu_khz,cores", "x,9,8,4,3,2,1")
    table = MeasurementTable.read(path)
    assert table[0] == Measurement(PowerMode(1, 2, 3, 4), 0.008, 9.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cores,cpu_khz,gpu_hz,time_ms,power_w", "1,2,3,4,5"], "no column mem_hz"),
        ([HEADER], "no rows"),
        ([], "no column cores"),
        ([HEADER, f"{ROW},1,2", f"{ROW},nan,2"], "row 3: time_ms is nan"),
        ([HEADER, f"{ROW},0,2"], "row 2: time_ms is 0"),
        ([HEADER, f"{ROW},1,-2"], "row 2: power_w is -2"),
        ([HEADER, f"{ROW},1,inf"], "row 2: power_w is inf"),
        ([HEADER, f"{ROW},1,watts"], "row 2: power_w is 'watts'"),
        ([HEADER, f"{ROW},1"], "row 2: power_w is ''"),
        ([HEADER, "4.5,422400,114750000,665600000,1,2"], "row 2: cores is 4.5"),
        ([HEADER, f"{ROW},1,2", "", f"{ROW},1,2"], "row 4: the mode of row 2 again"),
    ],
)
def test_a_defect_is_named_with_its_row(tmp_path, lines, message):
    with pytest.raises(InvalidTable, match=message):
        MeasurementTable.read(write(tmp_path, *lines))


def test_a_mode_outside_the_board_is_named_with_its_row(tmp_path):
    path = write(tmp_path, HEADER, f"{ROW},1,2", "4,422400,115000000,665600000,1,2")
    assert len(MeasurementTable.read(path)) == 2
    with pytest.raises(InvalidTable, match=r"row 3: gpu 115 MHz .*114\.75"):
        MeasurementTable.read(path, AGX)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(InvalidTable, match=r"none\.csv"):
        MeasurementTable.read(tmp_path / "none.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InvalidTable, match=r"binary\.csv"):
        MeasurementTable.read(binary)


def test_batch_sizes_on_some_measurements_only_are_refused():
    mode = AGX.maximum
    with pytest.raises(InvalidInput, match="batch size"):
        MeasurementTable.of([Measurement(mode, 1, 1, 4), Measurement(mode, 1, 1)])


def test_the_shared_tables_lie_in_their_boards_spaces(shared_table):
    for name, board in (
        ("orin_agx_train_resnet18.csv", "orin-agx"),
        ("orin_nano_train_resnet18.csv", "orin-nano"),
    ):
        shared_table(name).check_space(load_board(board).space)


def test_a_file_of_predictions_is_not_taken_for_measurements(tmp_path):
    path = tmp_path / "predicted.csv"
    path.write_text(
        "cores,cpu_khz,gpu_hz,mem_hz,time_ms,power_w,time_std,power_std\n"
        "12,2201600,1300500000,3199000000,59.3,51.1,0.02,0.01\n"
    )
    with pytest.raises(InvalidTable, match="predictions"):
        MeasurementTable.read(path)
