"""More processes give the same result."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
import torch

from tests.strategies.offers_of import offer
from tests.strategies.watching import WATCHING, Watching
from wattfed.client.worker.client_state import ClientState
from wattfed.server.engines.simulation import simulate
from wattfed.server.engines.workers import ClientJob, Instructions, WorkerDied, Workers
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.updates import GlobalModel
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes


@pytest.fixture
def config(tmp_path):
    return RunConfig(out_dir=str(tmp_path), rounds=2, local_epochs=1, strategy="random")


def test_two_processes_train_the_same_model_bit_for_bit(config):
    """Also where some updates are summed and summarised in one process, others in the other."""
    config = replace(config, per_round=18, strategy=WATCHING)
    alone = simulate(replace(config, workers=1, name="alone"))
    told_alone = Watching.last.told
    shared = simulate(replace(config, workers=2, name="shared"))
    assert told_alone == Watching.last.told and len(told_alone[-1]) == 18
    assert alone.rows == shared.rows and alone.ledger.reports == shared.ledger.reports
    one, two = (torch.load(run.folder / "model.pt") for run in (alone, shared))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_an_error(config):
    workers = Workers(config, 1)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(WorkerDied, match="--workers 1"):
        workers.do(
            Instructions(1, 0.0, GlobalModel({})),
            [[ClientJob(0, ClientState(), RoundAssignment(0, 1), offer(0))]],
            ended=list,
        )
    workers.close()
