"""Long work that is stopped says what is saved, and the command that it names goes on with it."""

from __future__ import annotations

import shlex
import signal

import pytest

from tests.processes import Command

pytestmark = pytest.mark.processes

RESULTS = ("rounds.csv", "reports.jsonl", "summary.json", "model.pt")
TASK = ("--task", "images-cnn(samples=400, test=50, size=4)", "--strategy", "oort")
FLEET = '[[group]]\nboard = "orin-agx"\ncount = 4\n'


def named(text: str) -> list[str]:
    """The command that a stopped one has named."""
    (line,) = [line for line in text.splitlines() if line.startswith("stopped by ")]
    return shlex.split(line.rpartition("to go on: ")[2])


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.mark.parametrize(
    ("number", "terminal", "workers"),
    [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 1)],
    ids=["a terminal and Ctrl-C", "a pipe and SIGTERM"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, number, terminal, workers):
    words = ["wattfed", "simulate", *TASK, "--rounds", 12, "--workers", workers]
    run = Command(*words, cwd=tmp_path, terminal=terminal)
    run.until("round   3")
    assert run.interrupt(number) == 128 + number, run.text
    assert "Traceback" not in run.text and "Aborted" not in run.text
    folder = tmp_path / "runs" / "images-cnn(samples=400, test=50, size=4)-oort-slack-seed0"
    assert f"results: {folder}" in run.text.splitlines()[1]
    assert f"stopped by {number.name}, {folder} holds " in run.text
    again = named(run.text)
    assert again[-1] == "--resume"
    whole = Command(*words, "--name", "whole", cwd=tmp_path)
    assert whole.end() == 0, whole.text
    rest = Command(*again, cwd=tmp_path)
    assert rest.end() == 0, rest.text
    assert "goes on after round " in rest.text
    assert results(folder) == results(tmp_path / "runs" / "whole")


def test_a_run_that_is_stopped_before_its_first_round_says_so(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('reading')\ntime.sleep(600)\n")
    run = Command("wattfed", "simulate", "--task", "slow.py", cwd=tmp_path, terminal=True)
    run.until("reading\r\n")
    assert run.interrupt(signal.SIGINT) == 130
    assert run.text.splitlines()[-1] == "stopped by SIGINT"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stopped_comparison_says_how_many_runs_are_done_and_goes_on(tmp_path, jobs):
    (tmp_path / "fleet.toml").write_text(FLEET)
    run = Command(
        *("wattfed", "compare", "--fleet", "fleet.toml", "--rounds", 2, "--seeds", 12),
        *("--strategies", "random", "--power", "maxn", "--per-round", 2, "--out", "c"),
        *("--jobs", jobs, "--local-epochs", 1, "--all-rounds"),
        cwd=tmp_path,
        terminal=jobs == 2,
    )
    run.until("seed 1: ")
    assert run.interrupt(signal.SIGINT) == 130, run.text
    assert (
        f"of 12 runs are finished in {tmp_path / 'c'}" in run.text and "Traceback" not in run.text
    )
    finished = {path.parent.name for path in tmp_path.glob("c/runs/*/summary.json")}
    rest = Command(*named(run.text), cwd=tmp_path)
    assert rest.end() == 0, rest.text
    assert f"12 runs, {len(finished)} of them finished earlier" in rest.text


def test_a_command_with_nothing_to_save_ends_in_a_line(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('reading')\ntime.sleep(600)\n")
    run = Command("powerctl", "explain", "slow:make", "--input", 3, cwd=tmp_path, terminal=True)
    run.until("reading\r\n")
    assert run.interrupt(signal.SIGTERM) == 143
    assert run.text.splitlines()[-1] == "stopped by SIGTERM"
