import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch

from tests.client.agent.conftest import PATIENT, request, status_of
from tests.tasks import load_task
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent import rpc, tensors
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import decode_tensor, encode_tensor
from wattfed.client.gate import Gate

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("warm_models")]


def value(reply) -> float:
    return float(decode_tensor(reply.outputs[0]))


def gathered(futures):
    """Statuses and replies of calls that run at the same time."""
    outcomes = []
    for future in futures:
        try:
            outcomes.append(future.result(TIMEOUT_S))
        except grpc.RpcError as error:
            outcomes.append(error.code())
    return outcomes


def test_a_request_comes_back_with_the_models_output(stub):
    reply = stub.Predict(request(), timeout=TIMEOUT_S)
    assert (value(reply), reply.model_version, reply.batch_size) == (1.0, 1, 1)


def test_the_client_of_the_examples_prints_the_models_output(agent, monkeypatch, capsys):
    path = Path(__file__).parents[3] / "examples" / "predict.py"
    monkeypatch.setattr("sys.argv", [str(path), agent.socket, "constant", "2", "2"])
    runpy.run_path(str(path))
    assert "1." in capsys.readouterr().out


def test_requests_that_wait_at_the_same_time_are_batched(agent, stub):
    with Gate(socket=agent.socket) as gate:
        with gate.minibatch("train"):  # nothing else runs until they all wait
            futures = [stub.Predict.future(request(), timeout=TIMEOUT_S) for _ in range(8)]
            wait_until_queued(agent, 8)
        replies = gathered(futures)
    # of the size that was measured to take the least for a request, when the model was loaded
    assert all(1 < reply.batch_size <= 8 for reply in replies)


def test_a_full_queue_refuses_and_the_rest_is_answered(start, settings):
    agent = start(settings, limits=replace(PATIENT, queue_length=4))
    with agent.channel() as channel, Gate(socket=agent.socket) as gate:
        stub = rpc.InferenceStub(channel)
        with gate.minibatch("train"):
            futures = [stub.Predict.future(request(), timeout=TIMEOUT_S) for _ in range(10)]
            refused = [f for f in futures if wait_refused(agent, futures, 6) and f.done()]
        outcomes = gathered(futures)
    assert len(refused) == 6
    assert outcomes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 6


def test_a_request_is_refused_in_time_even_while_another_process_has_the_device(agent, stub):
    with Gate(socket=agent.socket) as gate, gate.minibatch("train"):
        code = status_of(lambda: stub.Predict(request(deadline_s=0.2), timeout=TIMEOUT_S))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_that_has_gone_leaves_no_request_behind(agent, stub):
    with Gate(socket=agent.socket) as gate, gate.minibatch("train"):
        future = stub.Predict.future(request(), timeout=TIMEOUT_S)
        wait_until_queued(agent, 1)
        future.cancel()
        wait_until_queued(agent, 0)


@pytest.mark.parametrize(
    "tensor",
    [
        pb.Tensor(dtype=pb.FLOAT32, shape=[2, 2], data=b"short"),
        pb.Tensor(dtype=pb.FLOAT32, shape=[2, 3], data=bytes(24)),
        pb.Tensor(dtype=pb.FLOAT64, shape=[2, 2], data=bytes(32)),
        pb.Tensor(dtype=pb.FLOAT32, shape=[-1, 4], data=bytes(16)),
        pb.Tensor(dtype=pb.FLOAT32, shape=[1 << 40, 1 << 40], data=b""),
        pb.Tensor(dtype=99, shape=[2, 2], data=bytes(16)),
        pb.Tensor(shape=[2, 2], data=bytes(16)),
    ],
    ids=["bytes", "shape", "type", "negative", "huge", "unknown", "untyped"],
)
def test_malformed_tensors_are_invalid_arguments(stub, tensor):
    wrong = pb.PredictRequest(inputs=[tensor])
    code = status_of(lambda: stub.Predict(wrong, timeout=TIMEOUT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert value(stub.Predict(request(), timeout=TIMEOUT_S)) == 1.0


def test_an_unknown_model_and_a_missing_input_say_what_there_is(stub):
    assert (
        status_of(lambda: stub.Predict(request(model="nothing"), timeout=TIMEOUT_S))
        is grpc.StatusCode.NOT_FOUND
    )
    assert (
        status_of(lambda: stub.Predict(pb.PredictRequest(), timeout=TIMEOUT_S))
        is grpc.StatusCode.INVALID_ARGUMENT
    )


def test_a_message_above_the_limit_is_refused(start, settings):
    agent = start(settings, limits=replace(PATIENT, message_bytes=1 << 16))
    with agent.channel() as channel:
        large = pb.PredictRequest(inputs=[pb.Tensor(data=bytes(1 << 17))])
        code = status_of(lambda: rpc.InferenceStub(channel).Predict(large, timeout=TIMEOUT_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_above_its_rate_is_refused_and_others_are_not(start, settings):
    agent = start(settings, limits=replace(PATIENT, rate_hz=0.01, burst=3))
    with agent.channel() as channel:
        stub = rpc.InferenceStub(channel)

        def predict(client):
            key = (("wattfed-client", client),)
            return stub.Predict.future(request(), timeout=TIMEOUT_S, metadata=key)

        greedy = gathered([predict("greedy") for _ in range(5)])
        other = gathered([predict("other")])
    assert greedy.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 2
    assert value(other[0]) == 1.0


def test_a_stream_answers_every_request_and_its_refusals(stub):
    good = [request(id=i) for i in range(100)]
    replies = list(stub.PredictStream(iter([*good, pb.PredictRequest(id=100)]), timeout=TIMEOUT_S))
    outcomes = {reply.id: reply.WhichOneof("outcome") for reply in replies}
    assert outcomes == dict.fromkeys(range(100), "reply") | {100: "refusal"}


@pytest.mark.parametrize("form", ["pt", "ts"])
def test_a_model_is_swapped_under_load_without_a_request_lost(form, start, settings, constant):
    last = 5 if form == "pt" else 3  # a process takes its time to start
    paths = {version: constant(version, form) for version in range(2, last + 1)}
    (model,) = settings.model
    if form == "ts":
        model = replace(model, path=constant(1, form), task="", inputs="2x2")
    agent, done = start(settings, model=(model,)), []

    def client(_):
        replies = []
        while not done:
            reply = stub.Predict(request(), timeout=TIMEOUT_S)
            replies.append((reply.model_version, value(reply)))
            time.sleep(0.01)  # so that the new model's process has its share of the machine
        return replies

    with agent.channel() as channel, ThreadPoolExecutor(8) as pool:
        stub = rpc.InferenceStub(channel)
        clients = pool.map(client, range(8))
        for path in paths.values():
            stub.ReloadModel(pb.ReloadModelRequest(name="constant", path=path), timeout=TIMEOUT_S)
        done.append(True)
        replies = [reply for client in clients for reply in client]  # raises what a client met
        assert all(version == answer for version, answer in replies)
        assert value(stub.Predict(request(), timeout=TIMEOUT_S)) == last


def test_a_model_that_is_replaced_while_a_request_is_checked_is_not_called_broken(
    start, settings, constant, monkeypatch
):
    (model,) = settings.model
    files = [replace(model, path=constant(v, "ts"), task="", inputs="2x2") for v in (1, 2)]
    agent = start(settings, model=(files[0],))
    check = tensors.check_inputs

    def replaced_meanwhile(inputs, wanted):
        monkeypatch.setattr(tensors, "check_inputs", check)
        agent.registry.reload("constant", files[1].path)
        check(inputs, wanted)

    monkeypatch.setattr(tensors, "check_inputs", replaced_meanwhile)
    with agent.channel() as channel:
        assert value(rpc.InferenceStub(channel).Predict(request(), timeout=TIMEOUT_S)) == 2


def test_the_only_model_is_read_again_also_by_no_name(stub):
    assert stub.ReloadModel(pb.ReloadModelRequest(), timeout=TIMEOUT_S).version == 2


def test_a_new_version_with_other_inputs_is_refused_and_the_old_one_stays(stub, tmp_path):
    for name, width in (("first", 4), ("other", 3)):
        program = torch.export.export(torch.nn.Flatten(), (torch.zeros(1, width),))
        torch.export.save(program, tmp_path / f"{name}.pt2")
    load = pb.LoadModelRequest(name="flat", path=str(tmp_path / "first.pt2"), latency_s=5)
    stub.LoadModel(load, timeout=TIMEOUT_S)
    reload = pb.ReloadModelRequest(name="flat", path=str(tmp_path / "other.pt2"))
    with pytest.raises(grpc.RpcError, match="the new version takes 3:float32"):
        stub.ReloadModel(reload, timeout=TIMEOUT_S)
    four = pb.PredictRequest(model="flat", inputs=[encode_tensor(torch.ones(4))])
    assert stub.Predict(four, timeout=TIMEOUT_S).model_version == 1


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_program_is_served_with_dynamic_and_with_fixed_batches(stub, tmp_path, dynamic):
    shapes = ({0: torch.export.Dim("n", min=1, max=64)},) if dynamic else None
    program = torch.export.export(
        torch.nn.Linear(3, 2), (torch.zeros(4, 3),), dynamic_shapes=shapes
    )
    torch.export.save(program, tmp_path / "linear.pt2")
    load = pb.LoadModelRequest(
        name="linear", path=str(tmp_path / "linear.pt2"), latency_s=TIMEOUT_S
    )
    assert stub.LoadModel(load, timeout=TIMEOUT_S).format == "export"
    one = pb.PredictRequest(model="linear", inputs=[encode_tensor(torch.ones(3))])
    assert list(stub.Predict(one, timeout=TIMEOUT_S).outputs[0].shape) == [2]


def test_a_tasks_state_dict_answers_as_the_model_does(stub, tmp_path):
    model = load_task("digits").model().eval()
    torch.save(model.state_dict(), tmp_path / "digits.pt")
    load = pb.LoadModelRequest(
        name="digits", path=str(tmp_path / "digits.pt"), task="digits", latency_s=TIMEOUT_S
    )
    stub.LoadModel(load, timeout=TIMEOUT_S)
    sample = load_task("digits").test_samples().inputs[0]
    one = pb.PredictRequest(model="digits", inputs=[encode_tensor(sample)])
    answer = decode_tensor(stub.Predict(one, timeout=TIMEOUT_S).outputs[0])
    torch.testing.assert_close(answer, model(sample[None])[0].detach())
    assert {m.name for m in stub.ListModels(pb.ListModelsRequest()).models} == {
        "constant",
        "digits",
    }


@pytest.mark.parametrize(
    "file",
    [
        ModelFile("bad", __file__, inputs="2x2"),
        ModelFile("bad", "/nowhere.ts", inputs="2x2"),
        ModelFile("bad", __file__, task="digits"),
    ],
    ids=["no model", "no file", "no state dict"],
)
def test_what_is_no_model_is_an_invalid_argument(stub, file):
    load = pb.LoadModelRequest(name=file.name, path=file.path, task=file.task, inputs=file.inputs)
    code = status_of(lambda: stub.LoadModel(load, timeout=TIMEOUT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_client_that_does_not_read_its_answers_holds_back_itself_alone(agent, stub):
    large = torch.zeros(250_000)
    load = pb.LoadModelRequest(name="echo", path=echo(agent), inputs="250000", latency_s=TIMEOUT_S)
    stub.LoadModel(load, timeout=TIMEOUT_S)
    sent = []

    def requests():
        for number in range(1000):
            sent.append(number)
            yield pb.PredictRequest(id=number, model="echo", inputs=[encode_tensor(large)])

    with agent.channel() as channel:
        unread = rpc.InferenceStub(channel).PredictStream(requests())
        assert value(stub.Predict(request(model="constant"), timeout=TIMEOUT_S)) == 1.0
        before = -1
        while len(sent) > before:  # until it is held back
            before = len(sent)
            time.sleep(0.5)
        assert len(sent) < 200
        assert value(stub.Predict(request(model="constant"), timeout=TIMEOUT_S)) == 1.0
        unread.cancel()


def echo(agent) -> str:
    """A model that answers with what it is asked."""
    path = f"{agent.settings.state_dir}/echo.ts"
    torch.jit.script(torch.nn.Identity()).save(path)
    return path


def wait_until_queued(agent, count):
    wait_for(agent, lambda job: job.queued == count)


def wait_refused(agent, futures, count):
    wait_for(agent, lambda job: job.rejected_full == count)
    return await_state(lambda: sum(future.done() for future in futures) == count)


def wait_for(agent, condition):
    with agent.channel() as channel:
        for status in rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(period_s=0.1)):
            jobs = {job.name: job for job in status.jobs}
            if condition(jobs["constant"]):
                return
