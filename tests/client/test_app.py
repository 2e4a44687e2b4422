"""The ClientApp in a process of its own: one offer a round, and Flower's mods around it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod

from benchmarks.in_process_grid import InProcessGrid
from powerctl.devices.opening import open_device
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.workload import load_workload, write_workload
from tests.tasks import load_task
from wattfed.client import app as client_app
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.pool import Pool
from wattfed.strategies.policies.catalogue import make_policy
from wattfed.strategies.protocol import CONFIG as CONFIG_RECORD
from wattfed.strategies.protocol import RoundOffer, decode_record
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig(strategy="random", per_round=2, local_epochs=1)
N_NODES = 3


def run(app, rounds=1, **train_config):
    strategy = SelectingStrategy(make_policy(CONFIG), make_aggregation(CONFIG), per_round=2)
    grid = InProcessGrid(app, N_NODES, CONFIG.to_flower())
    arrays = ArrayRecord(load_task("digits").model().state_dict())
    told = ConfigRecord(train_config)
    result = strategy.start(grid, arrays, num_rounds=rounds, train_config=told)
    return strategy.ledger, arrays, result.arrays


@pytest.fixture
def offers_made(monkeypatch):
    """How often each client has computed its offer."""
    made, offers_of = Counter(), Pool.offers_of

    def counted(self, rows):
        made.update(self._clients[rows].tolist())
        return offers_of(self, rows)

    monkeypatch.setattr(Pool, "offers_of", counted)
    return made


def test_an_offer_is_computed_once_a_round_by_each_client(offers_made):
    ledger, *_ = run(client_app.app, rounds=2)
    assert [len(entry.clients) for entry in ledger.entries] == [2, 2]
    assert offers_made == dict.fromkeys(range(N_NODES), 2)


def test_an_offer_that_was_lost_on_the_way_is_made_again(offers_made):
    app = ClientApp()
    app.query()(client_app.query)

    @app.train()
    def train(message, context):
        context.state.config_records.clear()
        return client_app.train(message, context)

    ledger, *_ = run(app)
    assert ledger.entries[0].reported == 2 and offers_made.total() == N_NODES + 2


def test_a_mod_of_flower_can_stand_around_a_training():
    app = ClientApp()
    app.query()(client_app.query)
    app.train(mods=[fixedclipping_mod])(client_app.train)
    ledger, before, after = run(app, clipping_norm=0.01)
    assert ledger.entries[0].reported == 2
    moved = [
        a - b for a, b in zip(after.to_numpy_ndarrays(), before.to_numpy_ndarrays(), strict=True)
    ]
    assert 0 < np.sqrt(sum((m**2).sum() for m in moved)) <= 0.0101


def test_a_node_without_an_agent_keeps_what_its_rounds_measure_and_offers_from_it(tmp_path):
    workload = replace(load_workload("resnet18-train"), name="mine@01234567-b16")
    write_workload(workload, tmp_path / "mine.toml")
    node = {"device": "twin:orin-nano", "state-dir": str(tmp_path)}
    app, told = ClientApp(), []

    @app.query()
    def query(message, context):
        context.node_config.update(node)
        reply = client_app.query(message, context)
        told.append(decode_record(RoundOffer, reply.content.config_records[CONFIG_RECORD]))
        return reply

    @app.train()
    def train(message, context):
        context.node_config.update(node)
        return client_app.train(message, context)

    config = replace(CONFIG, workload=str(tmp_path / "mine.toml"), local_epochs=5)
    strategy = SelectingStrategy(make_policy(config), make_aggregation(config), per_round=2)
    grid = InProcessGrid(app, 2, config.to_flower())
    strategy.start(grid, ArrayRecord(load_task("digits").model().state_dict()), num_rounds=2)
    board = open_device(node["device"]).board
    measured = CostModels(tmp_path, node["device"]).measured(board, workload)
    assert {row.origin for row in measured.read().rows} == {"round"}
    counted = SignaturePredictor(board, workload).expected_in(board.space.maximum)[0]
    first, later = told[0].maxn.time_s, told[-1].maxn.time_s
    assert first == counted != later
