"""An app of somebody's own with its task as it is: on a SuperLink, through an agent, and on Ray."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomli
import torch

from tests import warm
from tests.federation import COMPLETED, Federation
from tests.server.test_agents import AgentProcess
from tests.server.test_flower import ROOT, needs_runtime, reports, rounds
from wattfed.server.cli import main
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

APP = ROOT / "examples" / "quickstart"
KEYS = tomli.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
SAMPLES = (40, 64)  # of the two nodes, a quarter to evaluate with


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def app(folder) -> Path:
    return Path(shutil.copytree(APP, folder / "own-app"))


@pytest.fixture(scope="module")
def agent(folder, app):
    agent = AgentProcess(folder)
    copy = shutil.copy(app / "my_task.py", folder / "my_task.py")
    add = [sys.executable, "-m", "wattfed.client.agent.cli", "task", "add", str(copy)]
    warm.run([*add, "--state-dir", folder / "state"], cwd=ROOT).check_returncode()
    yield agent
    assert agent.end(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def federation(folder, agent):
    nodes = []
    source = torch.Generator().manual_seed(0)
    for client, n in enumerate(SAMPLES):
        path = folder / f"samples{client}.pt"
        inputs = torch.rand(n, 4, generator=source)
        torch.save((inputs, (inputs.sum(1) > 2).long()), path)
        nodes.append({"partition-id": client, "num-partitions": 2, "dataset-path": str(path)})
    nodes[0] |= {"device": "twin:orin-nano", "state-dir": str(folder / "states")}
    nodes[1] |= {"agent": agent.socket, "power-w": 25.0}
    with Federation(folder / "federation", nodes) as federation:
        yield federation


def accuracies(run: Path) -> list[float]:
    found = [float(row["accuracy"]) for row in rounds(run)[1:]]
    assert len(found) == 2
    return found


def is_share_of(n: int, shares: list[float]) -> bool:
    """Whether each is that of some of n samples."""
    return all(n * share == pytest.approx(round(n * share)) for share in shares)


def test_it_trains_and_evaluates_on_what_lies_on_each_node(federation, app, folder):
    result = federation.run(app, {"out-dir": str(folder)})
    assert result.status == COMPLETED, result.log
    told = reports(folder / "own")
    assert [(r["round"], r["client"]) for r in told] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    # two epochs of three quarters, in minibatches of the app's batch-size
    assert [r["wanted_minibatches"] for r in told] == [8, 12, 8, 12]
    assert all(r["minibatches"] == r["wanted_minibatches"] for r in told)
    assert is_share_of(sum(SAMPLES) // 4, accuracies(folder / "own"))
    # each charged as the task's own workload, which no configuration names; by what it knows of it
    name, _, origin = told[0]["charged"].partition(" ")
    assert name.startswith("my_task@") and name.endswith("-b8") and origin == "(counted)"
    assert {r["charged"].split(" ")[0] for r in told} == {name}
    assert f"are charged {name} (counted) for each minibatch" in result.log
    assert all(r["transfer_s"] == told[0]["transfer_s"] < 1e-4 for r in told)
    assert (folder / "states" / "counted" / f"{name}.toml").is_file()
    hidden = torch.load(folder / "own" / "model.pt")["hidden.weight"]
    assert len(hidden) == 8  # of the app's own model-name


def test_a_node_whose_file_differs_is_refused_in_a_line_and_the_run_goes_on(
    federation, app, folder
):
    with open(app / "my_task.py", "a") as file:
        file.write("\n# the server's file has changed\n")
    result = federation.run(app, {"out-dir": str(folder), "name": "differs"})
    assert result.status == COMPLETED, result.log
    (line, *_) = [line for line in result.log.splitlines() if "this agent knows no task" in line]
    assert "my_task of hash" in line and "wattfed-agent task add my_task" in line
    told = reports(folder / "differs")
    assert [(r["round"], r["client"]) for r in told] == [(1, 0), (2, 0)]
    assert is_share_of(SAMPLES[0] // 4, accuracies(folder / "differs"))


@needs_runtime
def test_the_simulation_runtime_learns_the_same_as_the_virtual_clock(call, monkeypatch, tmp_path):
    fleet = tmp_path / "two.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = [30, 50]\n')
    app = Path(shutil.copytree(APP, tmp_path / "own-app"))
    more = {"fleet": str(fleet), "out-dir": str(tmp_path), "name": "ray"}
    monkeypatch.chdir(app)
    done = call(
        main, "flower", *(word for key, value in more.items() for word in (f"--{key}", value))
    )
    assert done.returncode == 0, done.stderr
    config = RunConfig.from_flower({**KEYS, **more, "task": str(app / "my_task.py")})
    here = simulate(replace(config, name="here"))
    assert rounds(tmp_path / "ray") == rounds(here.folder)
    assert reports(tmp_path / "ray") == reports(here.folder)
    ray, own = (torch.load(tmp_path / name / "model.pt") for name in ("ray", "here"))
    assert all(torch.equal(ray[key], own[key]) for key in own)
