"""Rounds on an accelerator: as on the CPU, with the arrays copied out once."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from flwr.app import ConfigRecord, Context, Message, RecordDict

from powerctl.accelerator import CHOICE, Accelerator
from powerctl.devices.twin import Twin
from powerctl.errors import DeviceUnavailable, InvalidInput
from tests.client.worker.test_execution import BOARD, FAST, JOB, counted_steps, plan
from tests.client.worker.test_local_client import client
from tests.powerctl.test_accelerator import gpus
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.in_process import answer
from wattfed.client.tasks.federated import federated
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.execution import execute_plan
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.model_arrays import ResidentArrays, arrays_of
from wattfed.server.cli import cli
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.protocol import CONFIG, PROTOCOL, ROUND, VERSION, RoundAssignment
from wattfed.strategies.run_config import RunConfig

__all__ = ["gpus"]  # the fixture
DIGITS = RunConfig(rounds=2, local_epochs=1, workers=1, min_nodes=1)


def trained(task="digits"):
    """What a client's arrays are after a round, and what they were copied from."""
    one = client(task=task)
    model = one.task.first_model()
    one.train(model, RoundAssignment(2, 8), 1)
    return model


@pytest.mark.parametrize("task", ["digits", "images-cnn(samples=400, test=20)", "noop"])
def test_a_round_of_a_built_in_task_is_the_same_and_its_arrays_come_back_once(task, accelerator):
    model = trained(task)
    state = model.state_dict()
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    del accelerator.out[:]
    there = arrays_of(model)
    assert sorted(accelerator.out) == sorted(tensor.nbytes for tensor in state.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "here", classmethod(lambda cls: cls()))
        here = arrays_of(trained(task))
    assert here.keys() == there.keys()
    assert all(np.array_equal(here[name], there[name]) for name in here)


def test_a_run_in_bfloat16_learns_nearly_the_same_is_charged_alike_and_sends_the_same_kinds():
    arrays, reports = [], []
    for precision in ("float32", "bfloat16"):
        one = client(precision=precision)
        model = one.task.first_model()
        reports.append(one.train(model, RoundAssignment(2, 40), 1))
        arrays.append(arrays_of(model))
    whole, low = reports
    assert replace(low, loss=whole.loss, rms_loss=whole.rms_loss) == whole
    assert whole.loss != low.loss == pytest.approx(whole.loss, rel=0.02)
    assert [a.dtype for a in arrays[0].values()] == [a.dtype for a in arrays[1].values()]


def test_minibatches_are_copied_once_each_and_nothing_else_while_training(accelerator):
    one = client()
    model = one.task.first_model()
    del accelerator.into[:]
    one.train(model, RoundAssignment(2, 5), 1)
    assert len(accelerator.into) == 2 * 5  # inputs and labels
    assert not [nbytes for nbytes in accelerator.out if nbytes > 8]  # the losses alone


def test_arrays_resident_on_an_accelerator_are_written_and_read(accelerator):
    resident = ResidentArrays(federated(RunConfig(), 16).first_model())
    arrays = {name: 2 * array for name, array in resident.copy().items()}
    resident.load(arrays)
    assert all(np.array_equal(array, arrays[name]) for name, array in resident.copy().items())


def test_a_simulation_gives_the_same_model_and_metrics(accelerator, tmp_path):
    there = simulate(replace(DIGITS, out_dir=str(tmp_path / "there")))
    assert accelerator.into
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "here", classmethod(lambda cls: cls()))
        here = simulate(replace(DIGITS, out_dir=str(tmp_path / "here")))
    assert here.rows == there.rows
    saved = [torch.load(result.folder / "model.pt") for result in (here, there)]
    assert {tensor.device.type for tensor in saved[1].values()} == {"cpu"}
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


@pytest.mark.parametrize(("device", "threads"), [("twin:orin-nano", 1), ("host:orin-nano", 2)])
def test_one_thread_is_the_rule_of_simulated_boards_alone(device, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        one = client(device=device)
        one.train(one.task.first_model(), RoundAssignment(2, 2, power="fastest"), 1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def environment(monkeypatch):
    """The environment as it is, and as it was afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop(CHOICE, None)
    return os.environ


def ask(node_config):
    """An offer of a client in this process."""
    context = Context(1, 1, node_config, RecordDict(), RunConfig().to_flower())
    content = RecordDict({CONFIG: ConfigRecord({ROUND: 1, PROTOCOL: VERSION})})
    return answer(Message(content, dst_node_id=1, message_type="query"), context)


def test_a_node_says_where_its_models_live(environment, gpus):
    gpus(2)
    config = {"partition-id": 0, "num-partitions": 2, "accelerator": "cuda:1"}
    assert Accelerator.here().name == "cuda:0"
    with pytest.raises(InvalidInput, match="expected auto, cpu, cuda or cuda:N"):
        ask({**config, "accelerator": "tpu"})
    ask(config)
    assert Accelerator.here().name == "cuda:1"
    ask({**config, "accelerator": "cpu"})
    assert Accelerator.here().name == "cpu"


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_gpu_that_is_not_there_ends_a_command_before_anything_runs(command, environment, gpus):
    gpus(0)
    done = CliRunner().invoke(cli, [command, "--accelerator", "cuda", "--rounds", "1"])
    assert isinstance(done.exception, DeviceUnavailable) and CHOICE not in environment


class Cold(Twin):
    """A board on which the first minibatch takes forty times as long, as if it were a real one."""

    is_virtual = False
    is_cold = True

    def _minibatch(self, workload):
        time_s, power_w = super()._minibatch(workload)
        factor, self.is_cold = 40 if self.is_cold else 1, False
        return factor * time_s, power_w


def test_a_first_minibatch_is_charged_and_says_nothing_of_the_others():
    wanted = plan((FAST, 30))
    (one_s,) = (segment.time_s for segment in wanted.segments)
    run = partial(execute_plan, workload=JOB, plan=wanted, time_limit_s=75 * one_s)
    usual = run(Cold(BOARD), steps=counted_steps()[1])
    assert usual.stopped == "deadline" and usual.warm_up_s == 0  # all might take as long as that
    done = run(Cold(BOARD), steps=counted_steps()[1], is_cold=True)
    assert not done.stopped and done.minibatches == 30
    assert done.segments[0].minibatch_s == pytest.approx(one_s, rel=0.2)
    assert done.warm_up_s == pytest.approx(39 * one_s, rel=0.2)
    assert done.time_s == pytest.approx(69 * one_s, rel=0.2)


def test_it_is_told_once_for_each_task_of_a_process(caplog):
    caplog.set_level("INFO", "wattfed.client")
    config, reports = RunConfig(seed=41), []
    for _ in range(2):
        profile = ClientProfile(2, "", TrainingLimits())
        one = LocalClient(config, profile, 20, ClientState(), Cold(BOARD))
        reports.append(one.train(one.task.first_model(), RoundAssignment(2, 5), 1))
    assert one.task.warm == {"train"}
    assert reports[0].time_s > reports[0].warm_up_s > 0 == reports[1].warm_up_s
    (line,) = caplog.messages
    assert line.startswith("digits: first minibatch of train warmed up for ")
