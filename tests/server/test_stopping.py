"""Long work that is stopped says what is saved, and the command that it names goes on with it."""

from __future__ import annotations

import shlex
import signal

import pytest

from tests.processes import Command

pytestmark = pytest.mark.processes

RESULTS = ("rounds.csv", "reports.jsonl", "summary.json", "model.pt")
FLEET = '[[group]]\nboard = "orin-agx"\ncount = 4\n'
# It stands still after some steps, so that whoever stops it finds it at work, until it may go on.
TASK = """
import time
from pathlib import Path

import torch
from torch import nn


def make_model():
    return nn.Linear(2, 2)


def load_data(partition_id, batch_size):
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(partition_id))
    return [(x, (x[:, 0] > 0).long())]


def train_step(model, batch, optimizer):
    with open("steps", "a") as steps:
        steps.write(".")
    while Path("steps").stat().st_size > STEPS and not Path("go").exists():
        time.sleep(0.01)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()


@torch.no_grad()
def test(net, testloader):
    return {"loss": sum(float(nn.functional.cross_entropy(net(x), y)) for x, y in testloader)}
"""
ASKED = ("--task", "mine.py", "--fleet", "fleet.toml", "--per-round", 2, "--local-epochs", 1)


def prepare(folder, steps):
    """Have a fleet, and a task that stands still after some steps."""
    (folder / "fleet.toml").write_text(FLEET)
    (folder / "mine.py").write_text(TASK.replace("STEPS", str(steps)))
    return folder


def named(text: str) -> list[str]:
    """The command that a stopped one has named."""
    (line,) = [line for line in text.splitlines() if line.startswith("stopped by ")]
    return shlex.split(line.rpartition("to go on: ")[2])


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nobody stops."""
    folder = prepare(tmp_path_factory.mktemp("whole"), 14)
    (folder / "go").touch()
    words = [*ASKED, "--strategy", "oort", "--rounds", 12, "--workers", 1, "--name", "run"]
    run = Command("wattfed", "simulate", *words, cwd=folder)
    assert run.end() == 0, run.text
    return results(folder / "runs" / "run")


@pytest.mark.parametrize(
    ("number", "terminal", "workers"),
    [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 1)],
    ids=["a terminal and Ctrl-C", "a pipe and SIGTERM"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, number, terminal, workers):
    words = ["--strategy", "oort", "--rounds", 12, "--workers", workers]
    prepare(tmp_path, 14)
    run = Command("wattfed", "simulate", *ASKED, *words, cwd=tmp_path, terminal=terminal)
    run.until("round   3")
    assert run.interrupt(number) == 128 + number, run.text
    assert "Traceback" not in run.text and "Aborted" not in run.text
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"results: {folder}" in run.text.splitlines()[1]
    assert f"stopped by {number.name}, {folder} holds " in run.text
    again = named(run.text)
    assert again[-1] == "--resume"
    (tmp_path / "go").touch()
    rest = Command(*again, "--workers", 1, cwd=tmp_path)
    assert rest.end() == 0, rest.text
    assert "goes on after round " in rest.text
    assert results(folder) == whole


def test_a_run_that_is_stopped_before_its_first_round_says_so(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('reading')\ntime.sleep(600)\n")
    run = Command("wattfed", "simulate", "--task", "slow.py", cwd=tmp_path, terminal=True)
    run.until("reading\r\n")
    assert run.interrupt(signal.SIGINT) == 130
    assert run.text.splitlines()[-1] == "stopped by SIGINT"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stopped_comparison_says_how_many_runs_are_done_and_goes_on(tmp_path, jobs):
    prepare(tmp_path, 14)
    run = Command(
        *("wattfed", "compare", *ASKED, "--rounds", 2, "--seeds", 4, "--strategies", "random"),
        *("--power", "maxn", "--out", "c", "--jobs", jobs, "--all-rounds"),
        cwd=tmp_path,
        terminal=jobs == 2,
    )
    run.until(" after 2 rounds, ")  # of a run that is finished
    assert run.interrupt(signal.SIGINT) == 130, run.text
    assert f"of 4 runs are finished in {tmp_path / 'c'}" in run.text and "Traceback" not in run.text
    assert "as many clients a round:" in run.text  # the table so far
    finished = {path.parent.name for path in tmp_path.glob("c/runs/*/summary.json")}
    (tmp_path / "go").touch()
    rest = Command(*named(run.text), "--jobs", 1, cwd=tmp_path)
    assert rest.end() == 0, rest.text
    assert f"4 runs, {len(finished)} of them finished earlier" in rest.text


def test_a_command_with_nothing_to_save_ends_in_a_line(tmp_path):
    (tmp_path / "slow.py").write_text("import time\nprint('reading')\ntime.sleep(600)\n")
    run = Command("powerctl", "explain", "slow:make", "--input", 3, cwd=tmp_path, terminal=True)
    run.until("reading\r\n")
    assert run.interrupt(signal.SIGTERM) == 143
    assert run.text.splitlines()[-1] == "stopped by SIGTERM"
