from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import arrivals
from powerctl.boards import load_board
from powerctl.errors import UnknownName
from tests.powerctl.fulcrum.conftest import twin_table


@pytest.fixture
def tables(tmp_path):
    space = load_board("orin-agx").space.thinned(3)
    twin_table("resnet18-train", space).write(tmp_path / "train.csv")
    twin_table("mobilenetv3-infer", space, (1, 4, 16)).write(tmp_path / "infer.csv")
    return tmp_path


def run(tables, *arguments):
    out = tables / "out.json"
    asked = ["--infer", str(tables / "infer.csv"), "--grid", "all", "--solver", "gmd"]
    asked += ["--length", "60", "--json", str(out), *arguments]
    done = CliRunner().invoke(arrivals.main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text())


def test_every_trace_is_served_under_every_plan(tables):
    rows = run(tables, "--train", str(tables / "train.csv"), "--trace", "constant,step,bursty")
    plans = ["controller", "static, mean", "static, peak", "oracle"]
    assert [row["plan"] for row in rows] == 3 * plans
    assert all(row["over_power_pct"] == 0 and row["late_pct"] < 5 for row in rows)
    assert all(row["train_rate_hz"] > 0 and row["energy_j"] > 0 for row in rows)
    assert all(row["switches"] == 0 for row in rows if row["plan"].startswith("static"))


def test_inference_alone_needs_no_table_of_training(tables):
    rows = run(tables, "--trace", "poisson", "--rate", "30")
    assert all(row["train_rate_hz"] == 0 for row in rows)


def test_the_rows_are_of_the_seed(tables):
    asked = ("--train", str(tables / "train.csv"), "--trace", "diurnal")
    first, again, other = (run(tables, *asked, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again != other


def test_an_unknown_trace_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'bursty'"):
        arrivals.make_trace("burst", 60, 10, 0)
