"""What a run leaves of its refusals, and how one ends in which everything was refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from benchmarks.in_process_grid import InProcessGrid
from wattfed.client.app import app as honest
from wattfed.server.engines.flower import run_federation
from wattfed.server.live.run import LiveRun
from wattfed.server.live.terminal import snapshot_lines
from wattfed.server.run.federation import NoClients
from wattfed.server.run.results import read_run
from wattfed.strategies.run_config import RunConfig

N = 3


def app_with(honest_ones: int) -> ClientApp:
    """Clients of which only the first so many send numbers."""
    app = ClientApp()
    app.query()(honest)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest(message, context)
        if context.node_config["partition-id"] >= honest_ones:
            arrays = {name: array.numpy() for name, array in reply.content["arrays"].items()}
            empty = {name: Array(np.full_like(one, np.nan)) for name, one in arrays.items()}
            reply.content["arrays"] = ArrayRecord(empty)
        return reply

    return app


@pytest.fixture
def config(tmp_path):
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f'[[group]]\nboard = "orin-agx"\ncount = {N}\n')
    return RunConfig(
        fleet=str(fleet),
        strategy="all",
        rounds=2,
        per_round=N,
        min_nodes=N,
        local_epochs=1,
        dirichlet_alpha=5.0,
        out_dir=str(tmp_path / "runs"),
        name="run",
    )


def run(config, honest_ones):
    grid = InProcessGrid(app_with(honest_ones), N, config.to_flower())
    return run_federation(grid, config)


def test_nothing_but_nan_from_everybody_is_an_error(config):
    with pytest.raises(NoClients, match=r"every update was refused.*client 2.*is not finite"):
        run(config, 0)


def test_refusals_are_lines_of_the_results_and_of_the_live_view(config, tmp_path):
    result = run(config, N - 1)
    folder = tmp_path / "runs" / "run"
    lines = [json.loads(line) for line in (folder / "refusals.jsonl").read_text().splitlines()]
    assert [(line["round"], line["node"], line["client"]) for line in lines] == [
        (1, 4, 2),
        (2, 4, 2),
    ]
    assert all("is not finite" in line["reason"] for line in lines)
    assert read_run(folder).ledger == result.ledger
    now = LiveRun(folder).look()
    assert now.record()["refusals"] == lines
    assert f"2 replies refused, the last in round 2: {now.refusals[-1]}" in snapshot_lines(now)


def test_refusals_of_rounds_that_are_done_again_are_not_told_twice(config, tmp_path):
    run(config, N - 1)
    folder = tmp_path / "runs" / "run"
    (folder / "checkpoints" / "round-0002.npz").unlink()
    result = run(replace(config, resume=True), N - 1)
    assert [refusal.round for refusal in result.ledger.refusals] == [1, 2]
    assert read_run(folder).ledger.refusals == result.ledger.refusals


def test_a_run_without_refusals_has_no_file_of_them(config, tmp_path):
    run(config, N)
    assert not (tmp_path / "runs" / "run" / "refusals.jsonl").exists()
    assert LiveRun(tmp_path / "runs").look().record()["refused"] == 0
