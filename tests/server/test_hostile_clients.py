"""A fifth of the clients sends its updates turned round and five times as long."""

from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from benchmarks.in_process_grid import InProcessGrid
from wattfed.client.app import app as honest
from wattfed.server.engines.flower import run_federation
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies

N_CLIENTS, HOSTILE = 10, (0, 1)
app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    return honest(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    before = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
    reply = honest(message, context)
    if context.node_config["partition-id"] in HOSTILE:
        trained = reply.content["arrays"]
        poison = {name: 6 * old - 5 * trained[name].numpy() for name, old in before.items()}
        reply.content["arrays"] = ArrayRecord({name: Array(p) for name, p in poison.items()})
    return reply


def accuracy(tmp_path, **options) -> float:
    """Of digits after two rounds."""
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f'[[group]]\nboard = "orin-agx"\ncount = {N_CLIENTS}\n')
    config = RunConfig(
        fleet=str(fleet),
        strategy="all",
        rounds=2,
        per_round=N_CLIENTS,
        min_nodes=N_CLIENTS,
        dirichlet_alpha=5.0,
        out_dir=str(tmp_path / "runs"),
        hostile=len(HOSTILE),
        **options,
    )
    grid = InProcessGrid(app, N_CLIENTS, config.to_flower())
    return run_federation(grid, config).rows[-1].value


def test_averaging_is_destroyed_by_them(tmp_path):
    assert accuracy(tmp_path) < 0.3


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "fedmedian"},
        {"aggregation": "fedtrimmedavg"},
        {"aggregation": "multikrum"},
        {"clip_norm": 1.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_what_withstands_them_learns(tmp_path, options):
    assert accuracy(tmp_path, **options) > 0.6
