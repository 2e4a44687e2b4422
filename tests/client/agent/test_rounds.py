"""Federated rounds through the agent: as in a process of one's own, beside inference, cut short."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from powerctl.errors import InvalidInput
from powerctl.jetson.fake_boards import make_fake_board
from powerctl.jetson.sysfs import Sysfs
from powerctl.rounds import RoundAssignment, RoundOffer, RoundReport
from tests.full_disc import largest_file
from tests.powerctl.jetson.conftest import settings as board_settings
from wattfed.client.agent.metrics import Metrics
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.proto import agent_pb2_grpc as rpc
from wattfed.client.agent.wire import (
    arrays_from_proto,
    arrays_to_proto,
    record_from_proto,
    record_to_proto,
)
from wattfed.client.fleet import profile_from_node_config
from wattfed.client.gate import Gate, LeaseExceeded
from wattfed.client.local import ClientState, LocalClient
from wattfed.client.tasks.task import client_labels, load_task
from wattfed.strategies.code_version import code_version
from wattfed.strategies.records import decode, encode
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig(local_epochs=2, seed=3)
NODE = {"partition-id": 0, "num-partitions": 5, "run-id": "7"}
TIMEOUT_S = 30


def configs(node=NODE):
    return {
        "run_config": record_to_proto(CONFIG.to_flower()),
        "node_config": record_to_proto(node),
        "code": code_version(),
    }


def train_request(round_id="7/1/0", minibatches=12, deadline_s=60.0, arrays=None, node=NODE):
    torch.manual_seed(0)
    state = load_task("digits").model().state_dict()
    arrays = {k: v.numpy() for k, v in state.items()} if arrays is None else arrays
    wanted = RoundAssignment(0, minibatches, deadline_s, power="fastest")
    return pb.TrainRequest(
        round_id=round_id,
        assignment=record_to_proto(dict(encode(wanted))),
        server_round=1,
        arrays=arrays_to_proto(arrays),
        **configs(node),
    )


@pytest.fixture
def rounds(agent):
    with agent.channel() as channel:
        yield rpc.RoundsStub(channel)


def result_of(events):
    for event in events:
        if event.WhichOneof("what") == "result":
            report = decode(RoundReport, record_from_proto(event.result.report))
            return report, arrays_from_proto(event.result.arrays)
    raise AssertionError("no result")


def test_an_offer_is_the_one_of_a_client_in_its_own_process(rounds):
    reply = rounds.Offer(pb.OfferRequest(**configs()), timeout=TIMEOUT_S)
    offer = decode(RoundOffer, record_from_proto(reply.offer))
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    own = LocalClient(CONFIG, profile, 5, ClientState()).offer()
    assert (offer.client, offer.examples, offer.minibatches) == (0, own.examples, own.minibatches)
    np.testing.assert_allclose(offer.front.time_s, own.front.time_s)


def test_a_round_learns_what_a_client_in_its_own_process_learns(rounds):
    report, arrays = result_of(rounds.Train(train_request(), timeout=TIMEOUT_S))
    assert report.minibatches == 12 and not report.stopped and report.energy_j > 0
    torch.manual_seed(0)
    model = load_task("digits").model()
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    client = LocalClient(CONFIG, profile, 5, ClientState())
    client.train(model, RoundAssignment(0, 12, 60.0, power="fastest"), server_round=1)
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(arrays[name], tensor.numpy(), rtol=1e-4, atol=1e-5)


def test_a_repeated_call_gets_the_result_of_the_same_round(rounds):
    first, _ = result_of(rounds.Train(train_request(), timeout=TIMEOUT_S))
    again, _ = result_of(rounds.Train(train_request(), timeout=TIMEOUT_S))
    assert again == first


def test_a_full_disc_loses_no_update_and_no_account_and_is_named(agent, rounds, caplog):
    states = Path(agent.settings.state_dir) / "clients"
    first, _ = result_of(rounds.Train(train_request(), timeout=TIMEOUT_S))
    (state,) = states.glob("*.json")
    kept = json.loads(state.read_text())["spent_j"]
    with largest_file(50):
        second, arrays = result_of(rounds.Train(train_request("7/2/0"), timeout=TIMEOUT_S))
    assert second.minibatches == 12 and arrays
    assert json.loads(state.read_text())["spent_j"] == kept
    assert f"{state}: File too large" in caplog.text
    assert list(states.iterdir()) == [state]
    third, _ = result_of(rounds.Train(train_request("7/3/0"), timeout=TIMEOUT_S))
    spent_j = sum(report.energy_j for report in (first, second, third))
    assert json.loads(state.read_text())["spent_j"] == pytest.approx(spent_j)


def left_j(stub, node):
    offered = stub.Offer(pb.OfferRequest(**configs(node)), timeout=TIMEOUT_S).offer
    return decode(RoundOffer, record_from_proto(offered)).allowance_j


def test_what_could_not_be_written_is_kept_in_memory_however_many_come_until_it_can(
    start, settings
):
    node = {**NODE, "energy-budget-j": 900.0}
    obstacle = Path(settings.state_dir) / "clients" / "7-0.json"
    first = start(settings)
    with first.channel() as channel:
        stub = rpc.RoundsStub(channel)
        left_j(stub, node)
        obstacle.mkdir()
        report, _ = result_of(stub.Train(train_request(node=node), timeout=TIMEOUT_S))
        for run in range(9):
            left_j(stub, {**NODE, "run-id": f"other-{run}"})
        assert left_j(stub, node) == pytest.approx(900 - report.energy_j)
    obstacle.rmdir()
    first.close()
    with start(settings).channel() as channel:
        assert left_j(rpc.RoundsStub(channel), node) == pytest.approx(900 - report.energy_j)


def labels_told(channel, run):
    request = pb.OfferRequest(**configs({**NODE, "run-id": run}))
    private = replace(CONFIG, label_privacy=0.1).to_flower()
    request.run_config.CopyFrom(record_to_proto(private))
    offered = rpc.RoundsStub(channel).Offer(request, timeout=TIMEOUT_S).offer
    return decode(RoundOffer, record_from_proto(offered)).label_counts


def test_noise_on_labels_is_drawn_once_a_run_and_outlives_the_agent(start, settings):
    exact = client_labels(load_task("digits"), 5, CONFIG.split, CONFIG.seed, 0.0)[0]
    first = start(settings)
    with first.channel() as channel:
        told = labels_told(channel, "7")
        assert labels_told(channel, "7") == told != tuple(exact)
    first.close()
    with start(settings).channel() as channel:
        assert labels_told(channel, "7") == told != labels_told(channel, "8")


def test_the_deadline_ends_a_round_and_a_second_one_goes_on(rounds):
    report, _ = result_of(
        rounds.Train(train_request(minibatches=100_000, deadline_s=5.0), timeout=TIMEOUT_S)
    )
    assert 0 < report.minibatches < 100_000
    after, _ = result_of(rounds.Train(train_request("7/2/0"), timeout=TIMEOUT_S))
    assert after.minibatches == 12


def test_a_round_without_a_single_turn_says_what_took_the_time(agent, rounds, caplog):
    longer = Gate("other", socket=agent.socket, lease_s=0.8)
    with longer, pytest.warns(LeaseExceeded), longer.minibatch("train"):
        short = train_request(deadline_s=4.0)  # the transfer takes 3.5 s
        report, arrays = result_of(rounds.Train(short, timeout=TIMEOUT_S))
    assert report.minibatches == 0 and report.stopped == "deadline" and not arrays
    assert re.match("not one minibatch was done: deadline; other turns took .* s", report.decline)
    assert report.decline in caplog.text


def test_cancel_ends_a_round_with_what_is_done(agent, rounds):
    events = rounds.Train(train_request(minibatches=1_000_000, deadline_s=1e9), timeout=TIMEOUT_S)
    next(events)
    with agent.channel() as channel:
        stub = rpc.RoundsStub(channel)
        assert stub.Cancel(pb.CancelRequest(round_id="7/1/0", reason="no use"), timeout=5).found
        assert not stub.Cancel(pb.CancelRequest(round_id="9/9/9"), timeout=5).found
    report, _ = result_of(events)
    assert report.stopped == "no use" and 0 < report.minibatches < 1_000_000


def test_a_caller_that_is_gone_frees_the_device(agent, rounds):
    events = rounds.Train(train_request(minibatches=1_000_000, deadline_s=1e9), timeout=TIMEOUT_S)
    next(events)
    events.cancel()
    deadline_s = time.monotonic() + 10
    with agent.channel() as channel:
        power = rpc.PowerStub(channel)
        while time.monotonic() < deadline_s:
            jobs = power.GetStatus(pb.StatusRequest(), timeout=5).jobs
            if not any(job.name.startswith("round") for job in jobs):
                return
            time.sleep(0.05)
    raise AssertionError("the round still runs")


@pytest.mark.parametrize("code", ["", "0123456789ab"])
def test_an_agent_warns_of_other_code_once(rounds, code, caplog):
    other = pb.OfferRequest(**{**configs(), "code": code})
    for _ in range(2):
        rounds.Offer(other, timeout=TIMEOUT_S)
    (line,) = (r.getMessage() for r in caplog.records if "other code" in r.getMessage())
    assert (code or "an older one") in line and "restart the agent" in line


def test_metrics_tell_the_budget_left_and_hold_no_label_of_a_single_round(start, settings):
    agent = start(settings, Metrics(), metrics="127.0.0.1:0")
    with agent.channel() as channel:
        stub = rpc.RoundsStub(channel)
        request = train_request(node={**NODE, "energy-budget-j": 900.0})
        report, _ = result_of(stub.Train(request, timeout=TIMEOUT_S))
    with urllib.request.urlopen(f"http://{agent.where.rpartition('metrics at ')[2]}/metrics") as it:
        text = it.read().decode()
    left = re.search(r'wattfed_energy_budget_left_joules{client="0",run="7"} (\S+)', text)
    assert float(left[1]) == pytest.approx(900 - report.energy_j)
    assert set(re.findall(r'wattfed_turn_seconds_count{workload="(\w+)', text)) >= {"round"}
    assert "7/1/0" not in text


def test_a_round_leaves_a_board_as_it_found_it(start, settings, tmp_path):
    board = make_fake_board("orin-agx", "6", tmp_path / "board")
    found = board_settings(board)
    agent = start(settings, device=f"jetson:{board.root}")
    with agent.channel() as channel:
        request = train_request(node={**NODE, "power-w": 40.0}, minibatches=2)
        events = rpc.RoundsStub(channel).Train(request, timeout=TIMEOUT_S)
        assert result_of(events)[0].minibatches == 2
    assert board_settings(Sysfs.open(board.root)) == found


def test_arrays_of_another_model_are_refused(rounds):
    with pytest.raises(grpc.RpcError) as error:
        list(rounds.Train(train_request(arrays={"w": np.zeros(3, np.float32)}), timeout=TIMEOUT_S))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_records_and_arrays_survive_the_wire():
    record = {"a": 1, "b": 2.5, "c": "x", "d": True, "e": [1, 2], "f": [0.5], "g": ["y"], "h": []}
    assert record_from_proto(record_to_proto(record)) == record
    arrays = {
        "m": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(4, dtype=np.int64),
        "o": np.zeros((0, 2)),
    }
    found = arrays_from_proto(arrays_to_proto(arrays))
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(InvalidInput, match="cannot be sent"):
        record_to_proto({"x": object()})
    broken = pb.NamedTensor(name="z", tensor=pb.Tensor(dtype=pb.FLOAT32, shape=[3], data=b"12"))
    with pytest.raises(InvalidInput, match="12 bytes, not 2"):
        arrays_from_proto([broken])


def test_inference_goes_on_while_a_round_trains(agent, rounds):
    done = []

    def train():
        done.append(result_of(rounds.Train(train_request(minibatches=60), timeout=TIMEOUT_S)))

    with agent.channel() as channel:
        inference = rpc.InferenceStub(channel)
        (model,) = inference.ListModels(pb.ListModelsRequest(), timeout=5).models
        sample = np.zeros(tuple(model.inputs[0].shape), dtype=np.float32)
        request = pb.PredictRequest(
            model=model.name, inputs=[arrays_to_proto({"x": sample})[0].tensor], deadline_s=5.0
        )
        thread = threading.Thread(target=train)
        thread.start()
        answers = [inference.Predict(request, timeout=10) for _ in range(20)]
        thread.join()
    assert len(answers) == 20 and done[0][0].minibatches == 60


def test_a_prediction_beyond_the_budget_does_not_starve_training(start, settings):
    tight = [replace(file, latency_s=0.1) for file in settings.model]
    agent = start(replace(settings, model=tuple(tight)))
    slow = {**NODE, "power-w": 15.0}  # whose modes are predicted to take 1 s a minibatch
    with agent.channel() as channel:
        request = train_request(node=slow, minibatches=6, deadline_s=600.0)
        report, _ = result_of(rpc.RoundsStub(channel).Train(request, timeout=TIMEOUT_S))
    assert report.minibatches == 6
