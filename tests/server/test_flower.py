"""The same app on Flower's own runtimes: simulated by Ray, and deployed with TLS on loopback."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.federation import COMPLETED, Federation
from tests.tasks import evaluate, load_task
from tests.waiting import TIMEOUT_S, await_state
from wattfed.server.engines.flower_run import run_on_flower
from wattfed.server.engines.flower_tools import ONE_PORT_SINCE, FlowerRunFailed, flower_version
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]


def rounds(folder):
    with open(folder / "rounds.csv") as file:
        return list(csv.DictReader(file))


def reports(folder):
    return [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]


needs_runtime = pytest.mark.skipif(
    flower_version() < ONE_PORT_SINCE, reason="wattfed flower needs a newer Flower"
)


@needs_runtime
def test_the_simulation_runtime_and_the_virtual_clock_agree(tmp_path):
    fleet = tmp_path / "four.toml"
    fleet.write_text(
        '[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = [30, 50]\n'
        '[[group]]\nboard = "orin-nano"\ncount = 2\nround_energy_j = 900\n'
    )
    config = RunConfig(
        fleet=str(fleet), rounds=2, per_round=3, min_nodes=4, out_dir=str(tmp_path), name="ray"
    )
    run_on_flower(ROOT, 4, config.to_flower(), relay=lambda line: None, timeout_s=TIMEOUT_S)
    here = simulate(RunConfig.from_flower({**config.to_flower(), "name": "here"}))
    assert rounds(tmp_path / "ray") == rounds(here.folder)
    assert reports(tmp_path / "ray") == reports(here.folder)
    ray, own = (torch.load(tmp_path / name / "model.pt") for name in ("ray", "here"))
    assert all(torch.equal(ray[key], own[key]) for key in own)


@needs_runtime
def test_a_run_that_fails_says_why(tmp_path):
    config = RunConfig(fleet="none", rounds=1, out_dir=str(tmp_path), timeout_s=20)
    with pytest.raises(FlowerRunFailed, match="no client took part|NoClients"):
        run_on_flower(ROOT, 1, config.to_flower(), relay=lambda line: None, timeout_s=TIMEOUT_S)


NODES = [
    {"partition-id": 0, "num-partitions": 2, "device": "twin:orin-agx", "power-w": 40.0},
    {
        "partition-id": 1,
        "num-partitions": 2,
        "device": "twin:orin-nano",
        "power-w": 15.0,
        "round-energy-j": 150.0,
    },
]


def test_two_supernodes_train_over_tls_and_go_on_when_their_superlink_has_died(tmp_path):
    config = RunConfig(
        rounds=2,
        per_round=2,
        strategy="all",
        local_epochs=1,
        min_nodes=2,
        dirichlet_alpha=5.0,
        out_dir=str(tmp_path / "runs"),
        name="deployed",
    )
    folder, states = tmp_path / "runs" / "deployed", tmp_path / "states"
    nodes = [{**node, "state-dir": str(states)} for node in NODES]
    with Federation(tmp_path / "federation", nodes) as federation:
        federation.submit(ROOT, config.to_flower())
        await_state((folder / "checkpoints" / "round-0001.npz").exists)
        federation.kill_superlink()
        assert len(rounds(folder)) == 2
        federation.start_superlink()
        federation.await_nodes()
        result = federation.run(ROOT, replace(config, resume=True).to_flower())
    assert result.status == COMPLETED, result.log
    told = result.log.partition("goes on after round 1")[2]
    assert "clients 0 orin-agx, 1 orin-nano\n" in told and "round   2  accuracy" in told
    assert "\x1b" not in told and "[ROUND" not in told  # neither colours nor Flower's own rounds
    names = json.loads((folder / "participants.json").read_text())["groups"]
    assert [group["name"] for group in names] == ["orin-agx", "orin-nano"]
    assert [row["clients"] for row in rounds(folder)[1:]] == ["0 1", "0 1"]
    told = reports(folder)
    assert [(r["round"], r["client"]) for r in told] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(r["peak_power_w"] <= r["power_limit_w"] for r in told)
    assert all(r["energy_j"] <= 150 for r in told if r["client"] == 1)
    assert told[1]["minibatches"] < told[1]["wanted_minibatches"]
    kept = {int(path.stem.split("-")[1]): json.loads(path.read_text()) for path in states.iterdir()}
    for client, state in kept.items():  # one account each, though Flower ran twice
        assert state["spent_j"] >= sum(r["energy_j"] for r in told if r["client"] == client)
    assert sorted(kept) == [0, 1] and len(list(states.iterdir())) == 2
    task = load_task("digits")
    model = task.model()
    model.load_state_dict(torch.load(folder / "model.pt"))
    accuracy = evaluate(model, task.test_samples())["accuracy"]
    assert accuracy == float(rounds(folder)[-1]["accuracy"]) > 0.3
