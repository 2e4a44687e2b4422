from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import solve
from benchmarks.configurations import Bounds
from benchmarks.ranges import parse_range
from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from tests.powerctl.fulcrum.conftest import twin_table

FIELDS = {"solver", "cap", "configurations", "solvable", "solved_pct", "seconds"} | {
    *("power_violations", "latency_violations", "modes_profiled_mean", "modes_profiled_max"),
    *(f"loss_{which}_pct" for which in ("median", "mean", "p95", "max")),
}


@pytest.fixture
def tables(tmp_path):
    space = load_board("orin-agx").space.thinned(3)
    twin_table("resnet18-train", space).write(tmp_path / "train.csv")
    twin_table("mobilenetv3-infer", space, (1, 4, 16)).write(tmp_path / "infer.csv")
    return ["--train", str(tmp_path / "train.csv"), "--infer", str(tmp_path / "infer.csv")]


def run(tmp_path, *arguments):
    out = tmp_path / "out.json"
    arguments = [*arguments, "--grid", "all", "--jobs", "1", "--json", str(out)]
    result = CliRunner().invoke(solve.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(out.read_text())


@pytest.mark.parametrize("problem", ["train", "infer", "concurrent"])
def test_every_solver_is_held_against_brute_force(tables, tmp_path, problem):
    rows = run(
        tmp_path,
        *("--problem", problem, *tables, "--power", "15:45:10", "--cap", "9"),
        *([] if problem == "train" else ["--rate", "30:90:30", "--latency", "0.2:1:0.4"]),
        *("--solver", "optimal,gmd,random-20,als-20,maxn"),
    )
    by_name = {row["solver"]: row for row in rows}
    assert all(row.keys() >= FIELDS for row in rows)
    assert all(row["power_violations"] + row["latency_violations"] == 0 for row in rows)
    optimal = by_name["optimal"]
    assert optimal["solved_pct"] == 100 and optimal["loss_max_pct"] == pytest.approx(0, abs=1e-9)
    assert optimal["campaign"] and by_name["als-20"]["campaign"] and not by_name["gmd"]["campaign"]
    assert by_name["gmd"]["modes_profiled_max"] <= 9
    assert by_name["random-20"]["modes_profiled_mean"] == 20
    assert by_name["als-20"]["modes_profiled_max"] == 20 or problem == "train"


@pytest.mark.studies
def test_a_network_that_breaks_the_budget_is_found_out(tables, tmp_path):
    (row,) = run(
        tmp_path, "--problem", "train", *tables, "--power", "15:45:0.5", "--solver", "nn-30"
    )
    assert row["power_violations"] > 0
    violated_pct = 100 * row["power_violations"] / row["solvable"]
    assert row["solved_pct"] == pytest.approx(100 - violated_pct)


def test_a_subsample_is_of_the_seed(tables, tmp_path):
    arguments = ("--problem", "infer", *tables, "--solver", "gmd", "--subsample", "20")
    first, again, other = (run(tmp_path, *arguments, "--seed", seed)[0] for seed in ("1", "1", "2"))
    for row in (first, again, other):
        assert row["configurations"] == 20
        del row["seconds"], row["seconds_per_solve"], row["seconds_per_solve_max"]
    assert first == again != other


def test_the_published_grids_have_the_published_numbers_of_configurations():
    sizes = (1, 4, 16, 32, 64)
    for kind, count in (("train", 41), ("infer", 5863), ("concurrent", 6560)):
        assert len(Bounds.parse(kind, {}, "rate", False).problems(sizes)) == count


def test_ranges_include_both_ends():
    assert parse_range("0.5:2.0:0.1")[-1] == 2.0 and len(parse_range("0.5:2.0:0.1")) == 16
    assert parse_range("30") == (30.0,)
    for text in ("1:2", "2:1:1", "a:b:c", "1:2:0"):
        with pytest.raises(InvalidInput, match="start:stop:step"):
            parse_range(text)


def test_a_table_that_is_needed_is_asked_for():
    with pytest.raises(InvalidInput, match="needs a table: --infer"):
        CliRunner().invoke(
            solve.main, ["--problem", "infer", "--solver", "gmd"], catch_exceptions=False
        )


def test_both_the_tables_as_they_are_and_screened_ones_are_solved(tmp_path):
    space = load_board("orin-agx").space.thinned(4)
    table = twin_table("resnet18-train", space)
    maxn = int(np.argmax(table.power_w))
    table.power_w[maxn] /= 4  # of another mode
    table.write(tmp_path / "train.csv")
    arguments = ("--problem", "train", "--train", str(tmp_path / "train.csv"))
    (row,) = run(tmp_path, *arguments, "--power", "8:40:2", "--solver", "gmd")
    assert row["solvable"] == row["solvable_screened"]
    assert row["loss_mean_pct_screened"] < row["loss_mean_pct"]
    assert row["only_unsupported_pct"] == 0
