import os
import signal
import threading
import time
from dataclasses import replace

import grpc
import pytest
import torch

from powerctl.errors import DeviceUnavailable, InvalidInput
from tests.client.agent.conftest import process
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import rpc
from wattfed.client.agent.framing import GATE_SUFFIX
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.gate import Gate, LeaseExceeded, NoGate, TurnRefused, find_gate

pytestmark = pytest.mark.processes

HOLD = """
import sys, time
from wattfed.client.gate import Gate
with Gate("holder", socket=sys.argv[1], serve_late=True).minibatch(sys.argv[2]):
    print("held")
    time.sleep(600)
"""
TAKE_TURNS = """
import fcntl, sys
from wattfed.client.gate import Gate
gate = Gate(socket=sys.argv[1], serve_late=True, latency_s=600)
with open(sys.argv[2], "w") as file:
    for number in range(200):
        with gate.minibatch(sys.argv[3]):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if another process has it
            fcntl.flock(file, fcntl.LOCK_UN)
print("done")
"""


@pytest.fixture
def gate(agent):
    with Gate("test", socket=agent.socket, latency_s=TIMEOUT_S) as gate:
        yield gate


@pytest.mark.parametrize("kind", ["infer", "train"])
def test_a_process_takes_turns(gate, kind):
    for _ in range(50):
        with gate.minibatch(kind):
            pass


def test_a_turn_ends_when_the_gpu_has_done_what_was_launched_in_it(agent, gate, monkeypatch):
    looked = []

    def others_wait(_):
        if threading.current_thread() is threading.main_thread():
            looked.append(True)
            other = Gate("other", socket=agent.socket, latency_s=0.05)
            with pytest.raises(TurnRefused), other, other.minibatch("infer"):
                pass

    with gate.minibatch("train"):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "synchronize", others_wait)
    assert looked == [True]


def test_two_processes_never_have_the_device_at_once(agent, tmp_path):
    arguments = (agent.socket, str(tmp_path / "device"))
    with (
        process(TAKE_TURNS, *arguments, "infer") as first,
        process(TAKE_TURNS, *arguments, "train") as second,
    ):
        assert [first.stdout.readline(), second.stdout.readline()] == ["done\n"] * 2


@pytest.mark.parametrize("kind", ["infer", "train"])
def test_a_holder_that_is_killed_frees_its_turn_at_once(agent, gate, kind):
    with process(HOLD, agent.socket, kind) as holder:
        assert holder.stdout.readline() == "held\n"
        start_s = time.monotonic()
        holder.send_signal(signal.SIGKILL)
        with gate.minibatch("infer"):
            assert time.monotonic() - start_s < agent.settings.lease_s / 2


def test_a_holder_that_hangs_loses_its_turn_when_its_lease_ends(start, settings):
    agent = start(settings, lease_s=0.5)
    with process(HOLD, agent.socket, "train") as holder:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        with Gate(socket=agent.socket, latency_s=TIMEOUT_S) as gate, gate.minibatch("infer"):
            pass


def test_a_turn_longer_than_its_lease_is_warned_of_and_the_next_one_is_had(agent):
    with Gate(socket=agent.socket, lease_s=0.1) as gate:
        with pytest.warns(LeaseExceeded, match="lease_s="), gate.minibatch("train"):
            time.sleep(0.2)
        with gate.minibatch("train"):
            pass


def test_a_turn_that_comes_too_late_is_refused(agent, gate):
    other, late = Gate(socket=agent.socket), pytest.raises(TurnRefused, match="within 50 ms")
    with other, other.minibatch("train"), late, gate.minibatch("infer", deadline_s=0.05):
        raise AssertionError("two have the device")
    with gate.minibatch("infer"):
        pass


def test_an_error_in_a_turn_gives_it_back(gate):
    with pytest.raises(ZeroDivisionError), gate.minibatch("train"):
        raise ZeroDivisionError
    with gate.minibatch("infer"):
        pass


def test_a_gate_finds_an_agent_that_has_started_again(start, settings):
    first = start(settings)
    with Gate(socket=first.socket) as gate:
        with gate.minibatch("train"):
            pass
        first.close()
        start(settings)
        with gate.minibatch("train"):
            pass


def test_without_an_agent_a_gate_says_how_to_start_one(tmp_path):
    gate = Gate(socket=str(tmp_path / "none.sock"), patience_s=0.0)
    with pytest.raises(DeviceUnavailable, match="wattfed-agent serve"), gate.minibatch("infer"):
        pass
    assert isinstance(find_gate(socket=str(tmp_path / "none.sock")), NoGate)


def test_without_an_agent_a_found_gate_lets_everybody_through(tmp_path):
    with find_gate(socket=str(tmp_path / "none.sock")) as gate, gate.minibatch("train"):
        pass
    with pytest.raises(InvalidInput, match="infer or train"), gate.minibatch("sleep"):
        pass


def test_only_this_user_may_connect(agent):
    modes = [os.stat(agent.socket + suffix).st_mode & 0o777 for suffix in ("", GATE_SUFFIX)]
    assert modes == [0o600, 0o600]


def test_turns_are_to_be_had_over_grpc_too(agent):
    def requests():
        yield pb.TurnRequest(join=pb.Join(name="grpc", kind=pb.INFER, latency_s=TIMEOUT_S))
        for turn in (1, 2):
            yield pb.TurnRequest(acquire=pb.Acquire(turn=turn))
            while len(heard) < turn + 1:
                time.sleep(0.001)
            yield pb.TurnRequest(release=pb.Release(turn=turn))

    heard = []
    with agent.channel() as channel:
        for event in rpc.GateStub(channel).Turns(requests(), timeout=TIMEOUT_S):
            heard.append(event.WhichOneof("what"))
    assert heard == ["joined", "granted", "granted"]


@pytest.mark.parametrize(
    "first",
    [
        pb.TurnRequest(acquire=pb.Acquire(turn=1)),
        pb.TurnRequest(join=pb.Join(name="nameless kind")),
        pb.TurnRequest(join=pb.Join(kind=pb.TRAIN, expected_s=-1)),
        pb.TurnRequest(join=pb.Join(kind=pb.INFER, latency_s=float("nan"))),
    ],
    ids=["no join", "no kind", "negative", "nan"],
)
def test_what_is_no_join_is_an_invalid_argument(agent, first):
    with agent.channel() as channel:
        events = rpc.GateStub(channel).Turns(iter([first]), timeout=TIMEOUT_S)
        with pytest.raises(grpc.RpcError) as caught:
            list(events)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_socket_that_sends_no_frames_is_hung_up_on(agent):
    import socket

    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(TIMEOUT_S)
        stranger.connect(agent.socket + GATE_SUFFIX)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = b""
        while received := stranger.recv(4096):
            answer += received
    assert b"at most" in answer


def test_too_many_holders_are_refused(start, settings):
    agent = start(replace(settings, model=()))
    gates = [Gate(socket=agent.socket, patience_s=0) for _ in range(65)]
    try:
        for gate in gates[:64]:
            with gate.minibatch("train"):
                pass
        with pytest.raises(TurnRefused, match="64 workloads"), gates[64].minibatch("train"):
            pass
    finally:
        for gate in gates:
            gate.close()
