"""A board is measured and set with powerctl alone: neither torch nor Flower is installed."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def powerctl(board, tmp_path_factory):
    """Run a command in a folder that all of this module share; what it printed, and its errors."""
    folder = tmp_path_factory.mktemp("measured")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(line: str, exit_code: int = 0) -> tuple[str, str]:
        command = [str(board / "powerctl"), *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout, done.stderr

    run("fake-board orin-agx --jetpack 6 orin")
    run("profile --device twin:orin-agx --modes 10 --out run.jsonl")
    run("fit run.jsonl --out net.json")
    return run


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "boards",
        "modes --board orin-agx --limit 3",
        "presets --board orin-nano",
        "daemon --help",
        "restore --root orin",
        "profile --device jetson:orin --modes 2 --out jetson.jsonl",
        "predict --predictor net.json --mode maxn",
        "choose --predictor net.json --power-limit 30",
        "plot --predictor net.json --power-limit 30 --out front.png",
        "solve --device twin:orin-agx --train resnet18-train --power 30 --plot search.png",
        "characterize --device twin:orin-agx --vary batch=8,16 --repetitions 2 --out study",
        "reference list",
        "twin run --board orin-agx --workload lstm-train --mode 12c/2201/1300/3199",
    ],
)
def test_it_runs_without_torch(line, powerctl):
    assert powerctl(line)[0]


@pytest.mark.parametrize(
    "line",
    [
        "explain resnet50 --board orin-agx --mode maxn",
        "tune resnet50 --device twin:orin-agx",
        "roofline measure",
        "characterize --out here",
        "choose --model resnet50 --power-limit 30",
    ],
)
def test_what_counts_or_trains_says_in_one_line_that_it_needs_torch(line, powerctl):
    *progress, told = powerctl(line, exit_code=2)[1].splitlines()
    assert all(said.endswith(" so far") for said in progress)  # on a busy machine
    assert told.startswith("powerctl: this needs torch, which ")
    assert "`powerctl doctor` says which belongs to this machine" in told


def test_the_doctor_finds_that_board_well_and_says_where_its_torch_is_from(powerctl):
    said = json.loads(powerctl("doctor --root orin --json")[0])
    assert said["ok"] and said["torch"]["version"] is None
    (missing,) = said["torch"]["missing"]
    assert "it is not installed for" in missing["what"] and "jp6/cu126" in missing["remedy"]
