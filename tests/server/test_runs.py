"""Runs that are kept: listed, compared, exported, and deleted without anything beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.server.comparison.running import run as run_comparison
from wattfed import read_run, simulate
from wattfed.server.cli import main
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.run.checkpoints import Checkpoints
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes
NAMES = ["first", "second", "both"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of two runs and a comparison, made once."""
    runs = tmp_path_factory.mktemp("kept") / "runs"
    fleet = runs.parent / "four.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 4\npower_w = 30\n')
    config = RunConfig(
        task="noop", fleet=str(fleet), rounds=2, per_round=2, workers=1, local_epochs=1,
        out_dir=str(runs),
    )  # fmt: skip
    simulate(config, name="first", strategy="random", power="maxn")
    simulate(config, name="second", strategy="random", power="slack", rounds=3)
    asked = Comparison(config, ("random",), ("maxn",), (2,), (0, 1), (0.3,))
    run_comparison(runs / "both", asked)
    return runs


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A copy of it, in the current folder."""
    shutil.copytree(made, tmp_path / "runs", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def listed(call) -> dict[str, dict]:
    return {one["name"]: one for one in json.loads(call(main, "runs", "list", "--json").stdout)}


def test_runs_and_comparisons_are_listed_with_how_far_they_are_and_their_size(runs, call):
    (runs / "both" / "runs" / "random-maxn-2-seed1" / "summary.json").unlink()
    (runs / "second" / "summary.json").unlink()
    (runs / "other").mkdir()
    found = listed(call)
    assert list(found) == NAMES
    assert (found["first"]["state"], found["first"]["rounds"]) == ("finished", "2 of 2")
    assert (found["second"]["state"], found["second"]["rounds"]) == ("not finished", "3 of 3")
    assert found["both"]["rounds"] == "1 of 2 runs"
    files = [path for path in (runs / "first").rglob("*") if path.is_file()]
    assert found["first"]["bytes"] == sum(path.stat().st_size for path in files)
    result = read_run(runs / "first")
    assert found["first"]["energy_j"] == result.ledger.energy_j
    text = call(main, "runs", "list").stdout
    assert all(name in text for name in NAMES) and text.splitlines()[-1].startswith("3 in ")


def test_a_damaged_run_is_listed_as_such_beside_the_others(runs, call):
    (runs / "first" / "rounds.csv").write_text("round\nmany\n")
    found = listed(call)
    assert found["first"]["state"] == "damaged" and "rounds.csv" in found["first"]["what"]
    assert found["second"]["state"] == "finished"


def test_runs_are_compared_as_baselines_are_and_what_differs_is_told(runs, call):
    done = call(main, "runs", "compare", "first", "second")
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    assert first == "second, beside first: power was maxn, not slack, rounds was 2, not 3"
    assert "random at maxn and random at slack cannot be compared" in done.stdout
    both = call(main, "runs", "compare", "both")  # runs of one policy are called by their folders
    assert "random-maxn-2-seed0" in both.stdout and "random-maxn-2-seed1" in both.stdout


def test_runs_of_different_tasks_are_not_compared(runs, call):
    path = runs / "second" / "config.json"
    path.write_text(path.read_text().replace('"noop"', '"digits"'))
    done = call(main, "runs", "compare", "first", "second")
    assert done.returncode == 2 and "runs of one task are compared" in done.stderr
    alone = call(main, "runs", "compare", "first")
    assert alone.returncode == 2 and "two runs or more are compared, got 1" in alone.stderr


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rounds_of_several_runs_are_exported_as_one_table(runs, call, ending):
    pandas = pytest.importorskip("pandas")
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    done = call(main, "runs", "export", "first", "both", "--out", f"rounds.{ending}")
    assert done.returncode == 0, done.stderr
    table = getattr(pandas, f"read_{ending}")(runs.parent / f"rounds.{ending}")
    assert list(dict.fromkeys(table["run"])) == [
        "first",
        "both/runs/random-maxn-2-seed0",
        "both/runs/random-maxn-2-seed1",
    ]
    mine = table[table["run"] == "first"]
    assert mine["total_energy_j"].tolist() == pytest.approx(
        read_run(runs / "first").to_pandas()["total_energy_j"].tolist()
    )
    assert set(mine["seed"]) == {0} and set(mine["strategy"]) == {"random"}


def test_reports_are_exported_with_a_row_for_each_client_in_each_round(runs, call):
    pandas = pytest.importorskip("pandas")
    call(main, "runs", "export", "first", "--table", "reports", "--out", "reports.csv")
    table = pandas.read_csv(runs.parent / "reports.csv")
    assert len(table) == len(read_run(runs / "first").ledger.reports)


@pytest.mark.parametrize(
    ("out", "missing", "message"),
    [
        ("rounds.xlsx", "", "rounds.xlsx: its name ends with one of .parquet, .csv"),
        ("rounds.csv", "pandas", "needs pandas: pip install 'wattfed[pandas]'"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(runs, call, monkeypatch, out, missing, message):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    done = call(main, "runs", "export", "first", "--out", out)
    assert done.returncode == 2 and message in done.stderr
    assert not (runs.parent / out).exists()


def test_deleting_tells_what_and_asks(runs, call, monkeypatch):
    answers = iter(["n\n", "y\n"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    kept = call(main, "runs", "delete", "first", "both")
    assert kept.returncode == 1 and "first, " in kept.stdout and "MB" in kept.stdout
    assert list(listed(call)) == NAMES
    gone = call(main, "runs", "delete", "first", "both")
    assert gone.returncode == 0 and list(listed(call)) == ["second"]


@pytest.mark.parametrize("name", ["..", "../runs/first", "/", ".", "first/checkpoints", "nothing"])
def test_nothing_outside_and_nothing_but_runs_is_deleted(runs, call, name):
    for wanted in (name, str(runs / "first")):
        done = call(main, "runs", "delete", "second", wanted, "--yes")
        assert done.returncode == 2 and "unknown run" in done.stderr
    assert list(listed(call)) == NAMES


def test_a_link_is_not_followed_into_what_it_leads_to(runs, call, tmp_path):
    (runs / "first").rename(tmp_path / "elsewhere")
    (runs / "first").symlink_to(tmp_path / "elsewhere")
    done = call(main, "runs", "delete", "first", "--yes")
    assert done.returncode == 2 and "is a link" in done.stderr
    assert (tmp_path / "elsewhere" / "summary.json").exists()


def test_what_another_process_writes_is_not_deleted(runs, call):
    with Checkpoints(runs / "first" / "checkpoints", ()):
        done = call(main, "runs", "delete", "first", "--yes")
    assert done.returncode == 2 and "another process writes this run" in done.stderr
    with ComparisonFolder(runs / "both").held():
        done = call(main, "runs", "delete", "both", "--yes")
    assert done.returncode == 2 and "another process runs this comparison" in done.stderr
    assert list(listed(call)) == NAMES


def test_a_folder_that_is_not_there_is_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(main, "runs", "--in", "nowhere", "list")
    assert done.returncode == 2 and "nowhere: not readable" in done.stderr


def test_who_only_looks_at_runs_does_not_wait_for_torch():
    code = (
        "import sys, wattfed.server.comparison.stored, wattfed.server.live.terminal\n"
        "import wattfed.server.comparison.report\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
