"""Federated rounds through the agent: as in a process of one's own, beside inference, cut short."""

from __future__ import annotations

import itertools
import json
import re
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import nn

from powerctl.devices.roots import open_sysfs
from powerctl.errors import InvalidInput
from powerctl.fakes.making import make_fake_board
from tests.full_disc import largest_file
from tests.powerctl.jetson.conftest import settings as board_settings
from tests.tasks import label_counts, load_task
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.telemetry import Metrics
from wattfed.client.agent.tensors import encode_tensor
from wattfed.client.agent.wire import NODE_CONFIG, RUN_CONFIG, Assembly, parts_of
from wattfed.client.fleet import profile_from_node_config
from wattfed.client.gate import Gate, LeaseExceeded
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.code_version import code_version
from wattfed.strategies.protocol import (
    CONFIG,
    PROTOCOL,
    ROUND,
    VERSION,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    decode_record,
    encode_record,
)
from wattfed.strategies.run_config import RunConfig

CONFIGURED = RunConfig(local_epochs=2, seed=3)
NODE = {"partition-id": 0, "num-partitions": 5, "run-id": "7"}


def message(
    kind, server_round=1, node=NODE, code=None, protocol=VERSION, configured=CONFIGURED, **more
):
    """The parts of a message that a ClientApp hands on."""
    code = code_version() if code is None else code
    head = pb.Head(protocol=VERSION, code=code, kind=kind, round_id=f"7/{server_round}/0")
    config = {ROUND: server_round, PROTOCOL: protocol, **more.pop("config", {})}
    records = {
        CONFIG: ConfigRecord(config),
        RUN_CONFIG: ConfigRecord(configured.to_flower()),
        NODE_CONFIG: ConfigRecord(node),
    }
    return [pb.Part(head=head), *parts_of(RecordDict({**records, **more}))]


def train_request(server_round=1, minibatches=12, deadline_s=TIMEOUT_S, arrays=None, node=NODE):
    torch.manual_seed(0)
    arrays = ArrayRecord(load_task("digits").model().state_dict()) if arrays is None else arrays
    wanted = RoundAssignment(0, minibatches, deadline_s, power="fastest")
    return message("train", server_round, node, config=encode_record(wanted), arrays=arrays)


def answer(stub, parts, timeout=TIMEOUT_S):
    """The content of the reply to a message."""
    return content_of(stub.Handle(iter(parts), timeout=timeout))


def content_of(parts):
    reply = Assembly()
    for part in parts:
        reply.add(part)
    return reply.content()


def result_of(content):
    """The report of a round, and its arrays if it has any."""
    report = decode_record(RoundReport, content.config_records[CONFIG])
    (arrays,) = list(content.array_records.values()) or [{}]
    return report, {name: array.numpy() for name, array in arrays.items()}


def trained(stub, *arguments, **keywords):
    return result_of(answer(stub, train_request(*arguments, **keywords)))


@pytest.fixture
def rounds(agent):
    with agent.channel() as channel:
        yield rpc.RoundsStub(channel)


def test_an_offer_is_the_one_of_a_client_in_its_own_process(rounds):
    offer = decode_record(RoundOffer, answer(rounds, message("query")).config_records[CONFIG])
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    own = LocalClient(CONFIGURED, profile, 5, ClientState()).offer()
    assert (offer.client, offer.examples, offer.minibatches) == (0, own.examples, own.minibatches)
    np.testing.assert_allclose(offer.front.time_s, own.front.time_s)


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("task", "{}/mine.py", "this agent knows no task mine.py"),
        ("task", "{}/mine.py:Mine", "this agent knows no task mine.py:Mine"),
        ("task", "mine", "this agent knows no task mine"),
        ("task", "os:system", "this agent knows no task os:system"),
        ("workload", "{}/mine.py:Mine", "an agent loads no code that a run points to"),
    ],
)
def test_a_run_cannot_point_an_agent_to_code(rounds, tmp_path, monkeypatch, key, text, why):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIGURED, **{key: text.format(tmp_path)})
    with pytest.raises(grpc.RpcError, match=why):
        answer(rounds, message("query", configured=config))
    assert not (tmp_path / "ran").exists()


def test_a_round_learns_what_a_client_in_its_own_process_learns(rounds):
    report, arrays = trained(rounds)
    assert report.minibatches == 12 and not report.stopped and report.energy_j > 0
    torch.manual_seed(0)
    model = load_task("digits").model()
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    client = LocalClient(CONFIGURED, profile, 5, ClientState())
    client.train(model, RoundAssignment(0, 12, 60.0, power="fastest"), server_round=1)
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(arrays[name], tensor.numpy(), rtol=1e-4, atol=1e-5)


def test_a_repeated_call_gets_the_result_of_the_same_round(rounds):
    first, _ = trained(rounds)
    again, _ = trained(rounds)
    assert again == first


def test_a_full_disc_loses_no_update_and_no_account_and_is_named(agent, rounds, caplog):
    states = Path(agent.settings.state_dir) / "clients"
    first, _ = trained(rounds)
    (state,) = states.glob("*.json")
    kept = json.loads(state.read_text())["spent_j"]
    with largest_file(50):
        second, arrays = trained(rounds, 2)
    assert second.minibatches == 12 and arrays
    assert json.loads(state.read_text())["spent_j"] == kept
    assert f"{state}: File too large" in caplog.text
    assert list(states.iterdir()) == [state]
    third, _ = trained(rounds, 3)
    spent_j = sum(report.energy_j for report in (first, second, third))
    assert json.loads(state.read_text())["spent_j"] == pytest.approx(spent_j)


def left_j(stub, node):
    query = message("query", node=node)
    return decode_record(RoundOffer, answer(stub, query).config_records[CONFIG]).allowance_j


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
        report, _ = trained(stub, node=node)
        for run in range(9):
            left_j(stub, {**NODE, "run-id": f"other-{run}"})
        assert left_j(stub, node) == pytest.approx(900 - report.energy_j)
    obstacle.rmdir()
    first.close()
    with start(settings).channel() as channel:
        assert left_j(rpc.RoundsStub(channel), node) == pytest.approx(900 - report.energy_j)


def labels_told(channel, run):
    private = replace(CONFIGURED, label_privacy=0.1)
    query = message("query", node={**NODE, "run-id": run}, configured=private)
    return decode_record(
        RoundOffer, answer(rpc.RoundsStub(channel), query).config_records[CONFIG]
    ).label_counts


def test_noise_on_labels_is_drawn_once_a_run_and_outlives_the_agent(start, settings):
    exact = label_counts("digits", 5, CONFIGURED.split, CONFIGURED.seed)[0]
    first = start(settings)
    with first.channel() as channel:
        told = labels_told(channel, "7")
        assert labels_told(channel, "7") == told != tuple(exact)
    first.close()
    with start(settings).channel() as channel:
        assert labels_told(channel, "7") == told != labels_told(channel, "8")


def test_the_deadline_ends_a_round_and_a_second_one_goes_on(rounds):
    for server_round in itertools.count(1):
        deadline_s = 2.5 * 2**server_round  # a busy machine is given more
        report, _ = trained(rounds, server_round, minibatches=100_000, deadline_s=deadline_s)
        if report.minibatches:
            break
    assert report.minibatches < 100_000
    after, _ = trained(rounds, server_round + 1)
    assert after.minibatches == 12


def test_a_round_without_a_single_turn_says_what_took_the_time(agent, rounds, caplog):
    longer = Gate("other", socket=agent.socket, lease_s=0.8)
    with longer, pytest.warns(LeaseExceeded), longer.minibatch("train"):
        short = train_request(deadline_s=4.0)  # the transfer takes 3.5 s
        report, arrays = result_of(answer(rounds, short))
    assert report.minibatches == 0 and report.stopped == "deadline" and not arrays
    assert re.match("not one minibatch was done: deadline; other turns took .* s", report.decline)
    assert report.decline in caplog.text


def test_cancel_ends_a_round_with_what_is_done(agent, rounds):
    events = rounds.Handle(
        iter(train_request(minibatches=1_000_000, deadline_s=1e9)), timeout=TIMEOUT_S
    )
    next(events)
    with agent.channel() as channel:
        stub = rpc.RoundsStub(channel)
        assert stub.Cancel(
            pb.CancelRequest(round_id="7/1/0", reason="no use"), timeout=TIMEOUT_S
        ).found
        assert not stub.Cancel(pb.CancelRequest(round_id="9/9/9"), timeout=TIMEOUT_S).found
    report, _ = result_of(content_of(events))
    assert report.stopped == "no use" and 0 < report.minibatches < 1_000_000


def test_a_caller_that_is_gone_frees_the_device(agent, rounds):
    events = rounds.Handle(
        iter(train_request(minibatches=1_000_000, deadline_s=1e9)), timeout=TIMEOUT_S
    )
    next(events)
    events.cancel()
    with agent.channel() as channel:
        power = rpc.PowerStub(channel)

        def under_way():
            jobs = power.GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S).jobs
            return [job for job in jobs if job.name.startswith("round") and not job.left]

        await_state(lambda: not under_way())


@pytest.mark.parametrize("code", ["", "0123456789ab"])
def test_an_agent_warns_of_other_code_once(rounds, code, caplog):
    for _ in range(2):
        answer(rounds, message("query", code=code))
    (line,) = (r.getMessage() for r in caplog.records if "other code" in r.getMessage())
    assert (code or "an older one") in line and "restart the agent" in line


def test_metrics_tell_the_budget_left_and_hold_no_label_of_a_single_round(start, settings):
    agent = start(settings, Metrics(), metrics="127.0.0.1:0")
    with agent.channel() as channel:
        stub = rpc.RoundsStub(channel)
        report, _ = trained(stub, node={**NODE, "energy-budget-j": 900.0})
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
        stub = rpc.RoundsStub(channel)
        assert trained(stub, node={**NODE, "power-w": 40.0}, minibatches=2)[0].minibatches == 2
    assert board_settings(open_sysfs(board.root)) == found


def test_arrays_of_another_model_are_refused(rounds):
    with pytest.raises(grpc.RpcError) as error:
        trained(rounds, arrays=ArrayRecord([np.zeros(3, np.float32)]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_another_protocol_is_refused_with_what_to_do(rounds, version):
    query = [pb.Part(head=pb.Head(protocol=version, kind="query")), *message("query")[1:]]
    for parts in (query, message("query", protocol=version)):
        with pytest.raises(grpc.RpcError, match=f"protocol .*{VERSION}: install the same version"):
            answer(rounds, parts)


def test_a_content_survives_the_wire_in_pieces_of_a_megabyte():
    arrays = {
        "m": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(4, dtype=np.int64),
        "o": np.zeros((0, 2)),
        "p": np.random.default_rng(0).integers(0, 2, (1,) * 12 + (3_000_000,)).astype(bool),
    }
    values = {"a": 1, "b": 2.5, "c": "x", "d": True, "e": [1, 2], "f": [0.5], "g": ["y"], "h": []}
    sent = RecordDict(
        {
            "arrays": ArrayRecord({k: Array(a) for k, a in arrays.items()}),
            "metrics": MetricRecord({"num-examples": 3}),
            "config": ConfigRecord(values),
        }
    )
    parts = list(parts_of(sent))
    assert max(part.ByteSize() for part in parts) < 1.1 * 2**20 and len(parts) == 1 + 3 + 3
    got = content_of(parts)
    assert got.config_records == sent.config_records
    assert got.metric_records == sent.metric_records
    for name, array in arrays.items():
        found = got.array_records["arrays"][name].numpy()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda parts: parts[:-1], "1 arrays, 0 came"),
        (lambda parts: parts[1:], "ended before its records"),
        (lambda parts: [*parts, parts[-1]], "1 arrays, 2 came"),
        (lambda parts: [pb.Part(records=b"\xff" * 9)], "records cannot be read"),
    ],
)
def test_a_content_that_is_not_whole_is_refused(spoil, match):
    parts = list(parts_of(RecordDict({"arrays": ArrayRecord([np.zeros(3)])})))
    with pytest.raises(InvalidInput, match=match):
        content_of(spoil(parts))


def test_a_round_without_memory_is_told_and_the_agent_goes_on(agent, rounds, monkeypatch):
    failing, step = [True], nn.functional.cross_entropy

    def loss(*arguments):
        if failing:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(*arguments)

    monkeypatch.setattr(nn.functional, "cross_entropy", loss)
    report, arrays = trained(rounds)
    assert report.decline.startswith("not one minibatch was done: out of memory") and not arrays
    failing.clear()
    offer = decode_record(RoundOffer, answer(rounds, message("query", 2)).config_records[CONFIG])
    report, arrays = trained(rounds, 2, minibatches=offer.minibatches)
    assert report.minibatches == report.planned_minibatches == offer.minibatches and arrays
    assert report.batch_size == 8


def test_inference_goes_on_while_a_round_trains(agent, rounds):
    done = []

    def train():
        done.append(trained(rounds, minibatches=60))

    with agent.channel() as channel:
        inference = rpc.InferenceStub(channel)
        (model,) = inference.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        sample = np.zeros(tuple(model.inputs[0].shape), dtype=np.float32)
        request = pb.PredictRequest(
            model=model.name,
            inputs=[encode_tensor(torch.from_numpy(sample))],
            deadline_s=TIMEOUT_S,
        )
        thread = threading.Thread(target=train)
        thread.start()
        answers = [inference.Predict(request, timeout=TIMEOUT_S) for _ in range(20)]
        thread.join()
    assert len(answers) == 20 and done[0][0].minibatches == 60


def test_a_prediction_beyond_the_budget_does_not_starve_training(start, settings):
    tight = [replace(file, latency_s=0.1) for file in settings.model]
    agent = start(replace(settings, model=tuple(tight)))
    slow = {**NODE, "power-w": 15.0}  # whose modes are predicted to take 1 s a minibatch
    with agent.channel() as channel:
        stub = rpc.RoundsStub(channel)
        report, _ = trained(stub, node=slow, minibatches=6, deadline_s=600.0)
    assert report.minibatches == 6
