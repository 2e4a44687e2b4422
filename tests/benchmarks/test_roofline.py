from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import roofline
from powerctl.boards import load_board
from tests.powerctl.fulcrum.conftest import twin_table

FIELDS = {
    *("time_mape_no_profile", "power_mape_no_profile", "time_mape_fit", "power_mape_fit"),
    *("energy_saved_pct", "slowdown_pct", "energy_possible_pct", "modes_measured"),
}


def run(tmp_path, *arguments):
    out = tmp_path / "out.json"
    few = ("--modes", "8", "--profile", "4", "--attempts", "2", "--json", str(out))
    result = CliRunner().invoke(roofline.main, [*arguments, *few], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(out.read_text())


@pytest.fixture
def space():
    return load_board("orin-agx").space.thinned(3)


def test_a_training_table_and_a_model(tmp_path, space):
    twin_table("resnet18-train", space).write(tmp_path / "t.csv")
    row = run(tmp_path, "--table", str(tmp_path / "t.csv"), "--workload", "resnet18")
    assert row.keys() >= FIELDS
    assert row["time_mape_fit"] < row["time_mape_no_profile"] < 40
    assert 0 <= row["energy_saved_pct"] <= row["energy_possible_pct"] + 1e-9
    assert row["slowdown_pct"] <= 5


def test_batch_sizes_and_totals(tmp_path, space):
    twin_table("mobilenetv3-infer", space, (1, 16)).write(tmp_path / "i.csv")
    totals = ("--flop-per-sample", "449e6", "--weight-bytes", "22e6", "--bytes-per-sample", "81e6")
    both = run(tmp_path, "--table", str(tmp_path / "i.csv"), *totals)
    assert both["batches"].keys() == {"1", "16"}
    one = run(tmp_path, "--table", str(tmp_path / "i.csv"), *totals, "--batch", "16")
    assert "batches" not in one and one["slowdown_pct"] <= 5


def test_something_must_be_counted(tmp_path, space):
    twin_table("resnet18-train", space).write(tmp_path / "t.csv")
    result = CliRunner().invoke(roofline.main, ["--table", str(tmp_path / "t.csv")])
    assert result.exit_code == 2 and "--flop-per-sample" in result.stderr
