"""More processes give the same result."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from tests.strategies.watching import WATCHING, Watching
from wattfed.client.fleet import load_fleet
from wattfed.client.worker.charging import charge_of_fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.server.engines.simulation import simulate
from wattfed.server.engines.workers import (
    ClientJob,
    Instructions,
    SimulatedRun,
    WorkerDied,
    Workers,
    longest_first,
)
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


def test_a_process_that_dies_is_an_error_and_others_start_with_the_next_run(config):
    fleet = load_fleet(config.fleet)
    run = SimulatedRun(config, fleet, charge_of_fleet(config, len(fleet))[0])
    told, job = Instructions(1, 0.0, GlobalModel({})), ClientJob(0, ClientState())
    with closing(Workers(1)) as workers:
        workers.begin(run)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(WorkerDied, match="--workers 1"):
            workers.do(told, [[job]], ended=list)
        workers.begin(run)
        assert [len(block.done) for block in workers.do(told, [[job]], ended=list)] == [1]


def test_blocks_are_handed_out_by_their_minibatches_longest_first():
    def block(*minibatches):
        return [ClientJob(n, ClientState(), RoundAssignment(n, n)) for n in minibatches]

    assert list(longest_first([block(1, 2), block(9), block(4, 4), block(3)])) == [1, 2, 0, 3]
    assert list(longest_first([[ClientJob(0, ClientState())]] * 3)) == [0, 1, 2]
