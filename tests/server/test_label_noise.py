"""Where the noise on clients' labels is from: nobody can draw a deployed client's again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.in_process_grid import InProcessGrid
from tests.tasks import label_counts
from wattfed.client.app import app as client_app
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.protocol import CONFIG, RoundOffer, decode_record
from wattfed.strategies.run_config import RunConfig

N = 4


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        task="noop", rounds=3, per_round=2, label_privacy=0.05, out_dir=str(tmp_path), name="run"
    )


def labels_told(config, **node):
    """What each client has told in each round of a federation by messages."""
    told = {client: [] for client in range(N)}

    def app(message, context):
        context.node_config.update(node)
        reply = client_app(message, context)
        if message.metadata.message_type == "query":
            offer = decode_record(RoundOffer, reply.content[CONFIG])
            told[offer.client].append(offer.label_counts)
        return reply

    result = run_federation(InProcessGrid(app, N, config.to_flower()), config)
    return told, json.loads((result.folder / "summary.json").read_text())


def drawn_from_the_seed(config):
    told = label_counts(config.task, N, config.split, config.seed, config.label_privacy)
    return told.tolist()


def test_of_deployed_clients_it_is_drawn_once_a_run_and_not_from_the_seed(config):
    told, summary = labels_told(config, device="twin:orin-nano")
    for client, from_seed in enumerate(drawn_from_the_seed(config)):
        (first, *later) = told[client]
        assert later == [first] * 2
        assert first != tuple(from_seed)
    assert "the operating system on nodes" in summary["label_noise"]
    again, _ = labels_told(replace(config, name="again"), device="twin:orin-nano")
    assert again[0][0] != told[0][0]


def test_with_a_state_dir_it_outlives_flowers_run(config, tmp_path):
    node = {"device": "twin:orin-nano", "state-dir": str(tmp_path / "states")}
    told, _ = labels_told(config, **node)
    longer = replace(config, rounds=5, resume=True)
    again, _ = labels_told(longer, **node)
    assert {client: counts[0] for client, counts in again.items()} == {
        client: counts[0] for client, counts in told.items()
    }


def test_of_simulated_clients_it_is_drawn_from_the_seed(config):
    told, _ = labels_told(config)
    assert [list(told[client][0]) for client in range(N)] == drawn_from_the_seed(config)
    folder = simulate(replace(config, name="simulated")).folder
    assert json.loads((folder / "summary.json").read_text())["label_noise"] == "the run's seed"


def test_where_none_is_asked_for_the_summary_tells_of_none(config):
    folder = simulate(replace(config, label_privacy=0.0)).folder
    assert "label_noise" not in json.loads((folder / "summary.json").read_text())
