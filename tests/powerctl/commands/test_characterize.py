from __future__ import annotations

import os
import signal
import sys

import pytest

from tests import warm
from tests.waiting import await_state

pytestmark = pytest.mark.processes

TWIN = ("characterize", "--device", "twin:orin-agx", "--vary", "workers=0,4")
REAL = ("characterize", "--task", "slow_task.py", "--cache", "keep", "--vary", "batch=1,2")

_MAIN = "from powerctl.cli import main; main()"
TASK = """
import os, time
import torch
from torch import nn
from torch.utils.data import DataLoader

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        time.sleep(float(os.environ.get("SLOW_S", 0)))
        return torch.zeros(3), 0

def load_data(batch_size):
    return DataLoader(Samples(), batch_size=batch_size)

def make_model():
    return nn.Linear(3, 2)

def train(net, trainloader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        for x, y in trainloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

def test(net, testloader):
    return sum(net(x).sum() for x, y in testloader)
"""


@pytest.fixture(autouse=True)
def slow_task(tmp_path, monkeypatch):
    (tmp_path / "slow_task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)


def test_a_plan_says_cells_and_duration_and_runs_nothing(powerctl, tmp_path):
    text = powerctl(*TWIN, "--plan", "--out", "study")
    assert "workers 0" in text
    assert "2 cells, 3 times, 3 epochs each: 6 runs, 0 of them done; about" in text
    assert not (tmp_path / "study").exists()


def test_a_study_prints_what_it_found_and_writes_its_report(powerctl, tmp_path):
    text = powerctl(*TWIN, "--out", "study")
    assert "- Workers 0 → 4 cut fetch stalls by" in text
    assert "workers 0" in text
    assert (tmp_path / "study" / "report.html").stat().st_size > 20_000
    assert "6 runs, 6 of them done" in powerctl(*TWIN, "--plan", "--out", "study")


def test_levels_are_read_and_factors_fixed(as_json):
    asked = ("--vary", "batch=1,4", "--fix", "workers=2", "--fix", "storage=hdd", "--grid")
    plan = as_json(*TWIN, *asked, "--vary", "mode=MAXN,MODE_15W", "--plan", "--out", "study")
    assert plan["baseline"].startswith("workers 2, prefetch 2, storage hdd, batch 16, mode MAXN")
    assert len(plan["cells"]) == 2 * 3 * 2 + 2  # the baseline's batch size and workers too


def test_what_nobody_said_varies_as_usual(as_json):
    asked = ("characterize", "--device", "twin:orin-agx", "--workload", "mobilenetv3-train")
    names = {cell["cell"] for cell in as_json(*asked, "--plan", "--out", "study")["cells"]}
    assert {"workers 0", "storage hdd", "batch 64", "mode MODE_15W", "infer, batch 1"} <= names


def test_a_budget_leaves_the_rest_for_the_next_time(as_json):
    part = as_json(*TWIN, "--budget", "20m", "--out", "study")
    assert 0 < part["left_out"] < 6
    assert as_json(*TWIN, "--out", "study")["left_out"] == 0


def test_a_real_study_has_json_without_nan(as_json):
    found = as_json(*REAL, "--fix", "workers=0", "--repetitions", 2, "--out", "study")
    assert [cell["cell"] for cell in found["cells"]] == ["baseline", "batch 1", "batch 2"]
    assert found["cells"][1]["later"]["stall"] > 0
    assert found["cells"][1]["first"].get("energy") is None


def test_a_study_that_was_killed_goes_on_where_it_ended(as_json, tmp_path):
    asked = (*REAL, "--fix", "workers=0", "--repetitions", "3", "--out", "study")
    log = tmp_path / "study" / "study.jsonl"
    environment = {**os.environ, "SLOW_S": "0.05"}
    running = warm.Popen([sys.executable, "-c", _MAIN, *asked], env=environment)
    # the first line, and two runs
    await_state(lambda: lines(log) >= 3, lambda: running.poll() is None, 0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = log.read_text().splitlines()[:3]
    found = as_json(*asked)
    assert log.read_text().splitlines()[:3] == kept
    assert [cell["repetitions"] for cell in found["cells"]] == [3, 3, 3]


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--vary", "wrokers"), "did you mean 'workers'"),
        (("--vary", "workers=many"), "cannot read workers 'many'"),
        (("--vary", "mode=fast"), "fast"),
        (("--vary", "mode=grid:x"), "write grid:3"),
        (("--vary", "prefetch"), "say which levels"),
        (("--vary", "prefetch=1,4"), "knows no prefetch"),
        (("--fix", "workers=1,2"), "write one level"),
        (("--task", "digits"), "a simulated board has --workload"),
    ],
)
def test_what_cannot_be_varied_is_said(failing, arguments, message):
    said = failing("characterize", "--device", "twin:orin-agx", *arguments, "--out", "study")
    assert message in said


def test_a_workload_runs_on_a_simulated_board_only(failing):
    said = failing("characterize", "--workload", "resnet18-train", "--out", "study")
    assert "--workload is of a simulated board" in said


def test_another_study_needs_another_folder(failing, powerctl):
    powerctl(*TWIN, "--out", "study")
    assert "another folder with --out" in failing(*TWIN, "--fix", "batch=4", "--out", "study")


def test_a_study_is_run_bare_and_behind_a_command_and_compared(as_json, tmp_path):
    asked = (*TWIN, "--repetitions", "2", "--out", "both")
    found = as_json(*asked, "--compare-container", "env -u HOME")
    assert (found["cells"], found["repetitions"]) == (2, 2)
    assert {each["ratio"] for each in found["differences"]} == {1.0}  # the twin's seed is the same
    assert (tmp_path / "both" / "comparison.html").exists()
    again = as_json("characterize", "--compare", "both/bare", "both/container", "--out", "again")
    assert again["differences"] == found["differences"]


def test_a_budget_is_handed_on_to_both_sides_as_it_was_given(as_json):
    asked = (*TWIN, "--repetitions", "1", "--budget", "2h", "--out", "both")
    assert as_json(*asked, "--compare-container", "env -u HOME")["cells"] == 2


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("false", "the study container failed with exit code 1: false powerctl characterize"),
        ("no-such-docker run", "there is no command no-such-docker"),
        ("'", "No closing quotation"),
        (" ", "write what comes before powerctl"),
    ],
)
def test_a_command_that_runs_nothing_is_said(failing, prefix, message):
    asked = (*TWIN, "--repetitions", "1", "--out", "both", "--compare-container", prefix)
    assert message in failing(*asked)
