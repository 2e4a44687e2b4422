from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import power_modes
from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from tests.powerctl.fulcrum.conftest import twin_table


def run(tmp_path, *arguments):
    out = tmp_path / "out.json"
    done = CliRunner().invoke(power_modes.main, [*arguments, "--measured", "8", "--json", str(out)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return json.loads(out.read_text())


@pytest.mark.parametrize("limit", [(), ("--limit", "25")])
def test_the_least_there_is_bounds_what_is_chosen_and_all_are_modes_of_the_table(tmp_path, limit):
    table = twin_table("resnet18-train", load_board("orin-agx").space.thinned(3))
    table.write(tmp_path / "resnet.csv")
    table = MeasurementTable.read(tmp_path / "resnet.csv")
    (row,) = run(tmp_path, "--table", str(tmp_path / "resnet.csv"), *limit)
    assert row["workload"] == "resnet" and row["modes"] == len(table)
    within = table.power_w <= (row["limit_w"] or np.inf)
    assert row["least_j"] == table.energy_j[within].min() <= row["chosen_j"]
    assert row["fastest_s"] == table.time_s[within].min() and row["over_limit_w"] == 0
    assert row["maxn_j"] == table.energy_j[-1]  # the last of a grid
    assert row["saved_of_maxn_pct"] == pytest.approx(100 * (1 - row["chosen_j"] / row["maxn_j"]))
    assert row["above_least_pct"] < 15


def test_a_workload_runs_on_the_twin_and_without_either_there_is_nothing_to_compare(tmp_path):
    (row,) = run(tmp_path, "--workload", "lstm-train", "--board", "nano")
    assert row["workload"] == "twin of lstm-train" and row["board"] == "nano"
    with pytest.raises(InvalidInput, match="give --table FILE.csv, or --workload NAME"):
        run(tmp_path)
    with pytest.raises(InvalidInput, match="no mode within 1 W"):
        run(tmp_path, "--workload", "lstm-train", "--board", "nano", "--limit", "1")
