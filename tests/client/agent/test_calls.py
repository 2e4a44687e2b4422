"""Calls that no program of ours would make: refused with a status, and no traceback in the log."""

from __future__ import annotations

import math
import socket
import struct

import grpc
import pytest

from tests.client.agent.conftest import TIMEOUT_S, request, status_of
from tests.client.agent.test_rounds import NODE, message
from wattfed.client.agent import rpc
from wattfed.client.agent.framing import GATE_SUFFIX
from wattfed.client.agent.proto import agent_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NO_TIMES = [math.nan, math.inf, -math.inf, -1.0, 1e308]
GARBAGE = [b"\xff\xff\xff\xff\xff\xff", b"\x0a\xff", b"\x08" + b"\xff" * 12]
PACKAGE = "/wattfed.agent.v1"


@pytest.fixture
def channel(agent):
    with agent.channel() as channel:
        yield channel


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Nothing here may reach the log."""
    yield
    assert not [record for record in caplog.records if record.exc_info], caplog.text


def events(channel, *requests):
    return list(rpc.GateStub(channel).Turns(iter(requests), timeout=TIMEOUT_S))


@pytest.mark.parametrize("deadline_s", NO_TIMES)
def test_a_deadline_that_is_no_time_is_refused(stub, deadline_s):
    assert status_of(lambda: stub.Predict(request(deadline_s=deadline_s))) is INVALID
    (answer,) = stub.PredictStream(iter([request(deadline_s=deadline_s)]))
    assert answer.refusal.code == INVALID.value[0]


@pytest.mark.parametrize("latency_s", NO_TIMES)
def test_a_model_is_not_loaded_with_a_latency_that_is_no_time(stub, constant, latency_s):
    asked = pb.LoadModelRequest(name="b", path=constant(2), inputs="2x2", latency_s=latency_s)
    assert status_of(lambda: stub.LoadModel(asked)) is INVALID
    assert len(stub.ListModels(pb.ListModelsRequest()).models) == 1


def test_a_model_is_not_loaded_in_batches_without_end(stub, constant):
    asked = pb.LoadModelRequest(name="b", path=constant(2), inputs="2x2", batch_size=2**32 - 1)
    assert status_of(lambda: stub.LoadModel(asked)) is INVALID


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", ""])
def test_a_path_that_can_be_none_is_no_file(stub, path):
    asked = pb.LoadModelRequest(name="b", path=path, inputs="2x2")
    assert status_of(lambda: stub.LoadModel(asked)) is INVALID
    if path:
        again = pb.ReloadModelRequest(name="constant", path=path)
        assert status_of(lambda: stub.ReloadModel(again)) is INVALID


@pytest.mark.parametrize("value", [b"\x93", [b"\x93"]])
def test_bytes_in_a_configuration_are_refused(channel, value):
    parts = message("query", node={**NODE, "state-dir": value})
    assert status_of(lambda: list(rpc.RoundsStub(channel).Handle(iter(parts)))) is INVALID


@pytest.mark.parametrize("field", ["latency_s", "expected_s", "rate_hz", "lease_s"])
@pytest.mark.parametrize("value", NO_TIMES)
def test_a_holder_does_not_join_with_what_is_no_time(channel, field, value):
    join = pb.TurnRequest(join=pb.Join(kind=pb.INFER, **{field: value}))
    assert status_of(lambda: events(channel, join)) is INVALID


@pytest.mark.parametrize("deadline_s", NO_TIMES)
def test_a_turn_by_what_is_no_time_is_refused(channel, deadline_s):
    join = pb.TurnRequest(join=pb.Join(kind=pb.INFER))
    acquire = pb.TurnRequest(acquire=pb.Acquire(turn=1, deadline_s=deadline_s))
    assert status_of(lambda: events(channel, join, acquire)) is INVALID


@pytest.mark.parametrize("period_s", NO_TIMES)
def test_telemetry_by_what_is_no_time_is_refused(channel, period_s):
    call = rpc.PowerStub(channel).Telemetry
    assert status_of(lambda: list(call(pb.TelemetryRequest(period_s=period_s)))) is INVALID


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("Inference/Predict", "unary_unary"),
        ("Inference/LoadModel", "unary_unary"),
        ("Inference/PredictStream", "stream_stream"),
        ("Gate/Turns", "stream_stream"),
        ("Rounds/Handle", "stream_stream"),
        ("Power/Telemetry", "unary_stream"),
    ],
)
def test_bytes_that_are_no_message_are_refused(channel, stub, call, kind, content):
    method = getattr(channel, kind)(f"{PACKAGE}.{call}")
    given = iter([content]) if kind.startswith("stream") else content

    def asked():
        answer = method(given, timeout=TIMEOUT_S)
        return answer if kind == "unary_unary" else list(answer)

    assert status_of(asked) is INVALID
    assert stub.Predict(request()).batch_size == 1


@pytest.mark.parametrize("content", GARBAGE)
def test_bytes_that_are_no_message_are_refused_at_the_gates_own_socket(agent, content):
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(TIMEOUT_S)
        end.connect(agent.socket + GATE_SUFFIX)
        end.sendall(struct.pack("<I", len(content)) + content)
        answer = b""
        while part := end.recv(4096):
            answer += part
    event = pb.TurnEvent.FromString(answer[4:])
    assert event.refused.refusal.code == INVALID.value[0]
