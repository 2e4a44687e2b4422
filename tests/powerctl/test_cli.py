"""The powerctl command as people and scripts call it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest

from powerctl.cli import main


@pytest.fixture
def powerctl(call):
    return partial(call, main)


@pytest.fixture
def as_json(powerctl):
    def as_json(*arguments):
        done = powerctl(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return as_json


def test_boards_modes_and_presets(as_json):
    sizes = {(b["board"], b["l4t"]): b["n_modes"] for b in as_json("boards")}
    assert sizes["orin-agx", "34.1"] == 18_096 and sizes["xavier-agx", "32.1"] == 29_232
    grid = as_json("modes", "--board", "orin-agx", "--cores", "4,8,12", "--per-axis", "12")
    assert grid["n_modes"] == len(grid["modes"]) == 3 * 12 * 12 * 4
    names = [p["name"] for p in as_json("presets", "--board", "orin-nano", "--l4t", "36.4")]
    assert names == ["15W", "25W", "MAXN_SUPER", "7W"]


def test_fronts_and_choices_agree(as_json, tmp_path):
    plot = tmp_path / "front.png"
    front = as_json("pareto", "--workload", "mobilenetv3-train", "--plot", plot)["front"]
    assert plot.stat().st_size > 10_000
    fastest = as_json("choose", "--workload", "mobilenetv3-train", "--power", "60")
    assert fastest["time_s"] == front[0]["time_s"]
    frugal = as_json("choose", "--workload", "mobilenetv3-train", "--deadline", "9s")
    assert frugal["energy_j"] == front[-1]["energy_j"]
    saving = as_json("choose", "--workload", "mobilenetv3-train", "--slowdown", "0.2")
    assert saving["energy_j"] < fastest["energy_j"]


def test_a_measured_table_replaces_the_model(as_json, small_csv, small_table):
    chosen = as_json("choose", "--table", small_csv, "--power", "20")
    assert chosen["origin"] == "measured, resnet18.csv"
    within = small_table.power_w <= 20
    assert chosen["time_s"] == pytest.approx(small_table.time_s[within].min(), rel=1e-4)


def test_the_twin_runs_and_is_fitted(powerctl, as_json, small_csv, tmp_path):
    ran = as_json("twin", "run", "--mode", "8c/1190/624/2133", "--minibatches", "200")
    assert ran["time_s"] == pytest.approx(ran["predicted_time_s"], rel=0.2)
    out = tmp_path / "mine.toml"
    done = powerctl("twin", "fit", small_csv, "--name", "mine", "--out", out)
    assert done.returncode == 0 and "mean error" in done.stdout
    assert as_json("choose", "--workload", out, "--power", "20")["power_w"] <= 20


def test_a_workload_is_estimated_from_its_counts(powerctl, as_json, tmp_path):
    out = tmp_path / "guess.toml"
    counts = ("--flop-per-sample", "2.5e10", "--bytes-per-sample", "7e8")
    done = powerctl("twin", "estimate", "--name", "guess", *counts, "--out", out)
    assert done.returncode == 0 and "powerctl twin fit" in done.stdout
    assert 0.05 < as_json("choose", "--workload", out, "--power", "60")["time_s"] < 1


def test_tables_are_aligned_for_people(powerctl):
    lines = powerctl("presets", "--board", "orin-agx").stdout.splitlines()
    assert lines[0].split()[:3] == ["preset", "id", "mode"]
    assert "reboot" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modes", "--board", "orin-agz"], "unknown board 'orin-agz'"),
        (["modes", "--cores", "a,b"], "cannot read --cores"),
        (["modes", "--cores", "64"], "64"),
        (["presets", "--l4t", "1.0"], "oldest is 34.1"),
        (["choose", "--power", "-3"], "write a power above 0"),
        (["choose", "--power", "1"], "the least there is"),
        (["choose"], "give --power-limit, --deadline, --slowdown or --energy-min"),
        (["choose", "--workload", "gpt", "--power", "20"], "unknown workload 'gpt'"),
        (["pareto", "--table", "nowhere.csv"], "nowhere.csv"),
        (["twin", "run", "--mode", "fast"], "cannot read 'fast'"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(powerctl, arguments, message):
    done = powerctl(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout


def test_a_corrupted_table_names_its_row(powerctl, tmp_path, small_csv):
    lines = small_csv.read_text().splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + ",-4"
    small_csv.write_text("\n".join(lines))
    done = powerctl("pareto", "--table", small_csv)
    assert done.returncode == 2 and "row 8: power_w is -4" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    argv = "sys.argv = ['powerctl', 'modes', '--json']"
    code = f"import sys; from powerctl.cli import main; {argv}; main()"
    done = subprocess.run(
        f'"{sys.executable}" -c "{code}" | head -1', shell=True, capture_output=True, text=True
    )
    assert done.stdout == "{\n" and "Traceback" not in done.stderr
