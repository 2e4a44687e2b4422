"""Rounds in a memory that is too small: declined, cut short, smaller the next time."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace

import pytest
import torch
from flwr.app import ArrayRecord

from benchmarks.in_process_grid import InProcessGrid
from powerctl.task.process_memory import ProcessMemory
from tests.tasks import load_task
from wattfed.client.app import app
from wattfed.client.fleet import ClientProfile, profile_from_node_config
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.tasks import federated as tasks
from wattfed.client.tasks.sampled import SampledTask
from wattfed.client.worker.client_state import ClientState, StateFile
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.policies.catalogue import make_policy
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig(local_epochs=1)
NODE = {"partition-id": 2, "device": "twin:orin-nano", "unit": 7}
GIB = 2**30
OWN = """
    import torch
    from torch import nn

    def make_model():
        return nn.Linear(2, 2)

    def load_data():
        return torch.utils.data.TensorDataset(torch.randn(64, 2), torch.zeros(64))

    def train_step(model, batch, optimizer):
        loss = model(batch[0]).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    def test(model, testloader):
        return 0.0
"""


@pytest.fixture
def machine(monkeypatch):
    """A machine of which the test says what is free, and what this process holds and held."""
    said = {"free": 8 * GIB, "held": GIB, "peak": 2 * GIB}
    for name in said:
        monkeypatch.setattr(ProcessMemory, f"{name}_bytes", lambda self, name=name: said[name])
    return said


@pytest.fixture
def replaced(monkeypatch):
    """Put something in the place of a function of tasks, which are kept once they are loaded."""

    def forget():
        for kept in (tasks._of_run, tasks._federated, tasks._loaded):
            kept.cache_clear()

    with monkeypatch.context() as patch:

        def replace_it(name, function):
            patch.setattr(SampledTask, name, function)
            forget()

        yield replace_it
    forget()


@pytest.fixture
def holds(replaced):
    """A memory in which minibatches of so many samples find room, after some that always do."""
    room, step = {"samples": 1000, "after": 0}, SampledTask.train_step

    def tight(self, model, batch, optimizer):
        room["after"] -= 1
        if len(batch) > room["samples"] and room["after"] < 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, model, batch, optimizer)

    replaced("train_step", tight)
    return room


def client(state=None, **config):
    profile = profile_from_node_config(NODE)
    return LocalClient(replace(CONFIG, **config), profile, 20, state or ClientState())


def train(one, server_round=1):
    torch.manual_seed(0)
    offer = one.offer()
    wanted = RoundAssignment(one.profile.client, offer.minibatches)
    return one.train(one.task.model(), wanted, server_round, offer=offer)


def test_a_round_that_needs_more_than_is_free_is_declined_with_both(machine):
    machine["free"] = 0.7 * GIB
    peak = ClientState(peak_bytes=int(2.8 * GIB))
    assert client(replace(peak)).offer().decline  # so that another is asked
    one = client(peak)
    report = train(one)
    assert report.decline == "needs about 1.98 GiB, 0.70 GiB is free"
    assert report.minibatches == 0 and one.state.spent_j == 0


def test_before_anything_was_measured_it_is_counted_and_that_is_said(machine):
    machine["free"] = 1000
    report = train(client())
    assert report.decline.endswith("0.00 GiB is free (counted, none was measured yet)")
    machine["free"] = 8 * GIB
    one = client()
    assert train(one).minibatches and one.state.peak_bytes == 2 * GIB


def test_after_a_round_that_did_not_fit_the_next_one_has_half_as_large_minibatches(machine, holds):
    one = client()
    whole = one.offer()
    machine["free"] = 0.5 * GIB
    declined = train(client(one.state))  # nothing is known yet, and its count is small
    assert not declined.decline
    machine["free"] = 0.1 * GIB
    assert "needs about" in train(one).decline
    half = one.offer()
    assert half.minibatches == 2 * whole.minibatches and half.examples == whole.examples
    assert half.maxn.time_s < whole.maxn.time_s
    report = train(one)
    assert report.minibatches == half.minibatches and report.examples == half.examples
    assert report.batch_size == 8 and declined.batch_size == 0


def test_out_of_memory_ends_a_round_with_what_is_done_and_the_next_one_is_smaller(machine, holds):
    one, machine["peak"] = client(), 5 * GIB
    holds |= {"samples": 8, "after": 3}
    report = train(one)
    assert report.stopped == "out of memory" and report.minibatches == 3 and not report.decline
    assert report.energy_j > 0 and one.state.spent_j == report.energy_j
    again = train(one, 2)
    assert again.batch_size == 8 and not again.stopped
    assert again.minibatches == again.wanted_minibatches


def test_with_memory_enough_for_twice_the_batch_it_is_twice_as_large_again(machine):
    one = client(ClientState(halvings=1))
    machine["free"] = 3.2 * GIB  # the last batch took 2 in all, of which this process still has 1
    assert train(one).batch_size == 8 and one.state.halvings == 1
    machine["free"] = 3.4 * GIB
    assert train(one, 2).batch_size == 8 and one.state.halvings == 0
    assert train(one, 3).batch_size == 0


def test_below_an_eighth_a_client_declines_until_more_is_free(machine, holds):
    one = client(ClientState(halvings=3))
    holds["samples"] = 1
    report = train(one)
    assert report.decline == "not one minibatch was done: out of memory"
    assert train(one, 2).decline == "needs about 8.80 GiB, 8.00 GiB is free"
    machine["free"], holds["samples"] = 9 * GIB, 2
    assert train(one, 3).batch_size == 2


def test_a_task_that_has_its_own_batch_size_declines_until_more_is_free(machine, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(textwrap.dedent(OWN))
    one = client(ClientState(peak_bytes=9 * GIB), task=str(path))
    machine["free"] = GIB
    for server_round in (1, 2):
        assert train(one, server_round).decline == "needs about 8.80 GiB, 1.00 GiB is free"
    machine["free"] = 9 * GIB
    assert train(one, 3).minibatches and one.state.halvings == 0


def test_the_batch_size_of_a_run_is_halved_for_a_users_own_task(machine, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(textwrap.dedent(OWN.replace("load_data()", "load_data(batch_size)")))
    settings = (("batch-size", 32),)
    whole, half = (
        client(ClientState(halvings=n), task=str(path), settings=settings) for n in (0, 1)
    )
    assert (whole.offer().minibatches, half.offer().minibatches) == (2, 4)


def test_a_client_in_a_process_of_its_own_for_each_message_is_smaller_too(machine):
    machine["free"] = 1000
    grid = InProcessGrid(app, 1, CONFIG.to_flower())
    grid.context(2).node_config["device"] = "twin:orin-nano"
    strategy = SelectingStrategy(make_policy(CONFIG), make_aggregation(CONFIG), per_round=1)
    arrays = ArrayRecord(load_task("digits").model().state_dict())
    strategy.start(grid, arrays, num_rounds=1)
    machine["free"] = 8 * GIB
    strategy.start(grid, arrays, num_rounds=1)
    declined, report = (report for _, report in strategy.ledger.reports)
    assert "(counted, none was measured yet)" in declined.decline and not declined.batch_size
    assert report.batch_size == 8 and report.minibatches == report.wanted_minibatches


def test_a_simulated_client_is_not_measured_by_this_hosts_memory(machine, holds, caplog):
    machine["free"] = 0
    simulated = LocalClient(
        CONFIG, ClientProfile(2, "twin:orin-nano", TrainingLimits()), 20, ClientState()
    )
    assert train(simulated).minibatches
    holds["samples"] = 0
    report = train(simulated, 2)
    assert report.decline == "not one minibatch was done: out of memory"
    assert "CUDA out of memory" in caplog.text and simulated.state.halvings == 0


def test_an_error_that_is_no_want_of_memory_is_raised(replaced):
    def fails(self, model, batch, optimizer):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    replaced("train_step", fails)
    with pytest.raises(ValueError, match="illegal memory access"):
        train(client())


def test_an_evaluation_without_memory_is_told(replaced):
    def fails(self, model, testloader):
        for _ in testloader:
            raise MemoryError

    replaced("test", fails)
    one = client()
    report, metrics = one.evaluate(one.task.model(), 1)
    assert report.decline == "the evaluation was not finished: out of memory" and not metrics


def test_what_was_learned_outlives_the_process_and_files_of_before_are_read(tmp_path):
    file = StateFile.of(tmp_path, "run", 0)
    kept = ClientState(3.0, 0.5, peak_bytes=5, halvings=2, under_way="7/1/0", oom_kills=4)
    file.write(kept)
    assert repr(file.read()) == repr(kept)
    values = json.loads(file.path.read_text())
    for name in ("peak_bytes", "halvings", "under_way", "oom_kills"):
        del values[name]
    file.path.write_text(json.dumps(values))
    assert file.read().halvings == 0 and file.read().spent_j == 3.0
