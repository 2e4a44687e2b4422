"""Doors of an agent: each call of its protocol, over the Unix socket of a real one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from flwr.app import ArrayRecord, RecordDict

from benchmarks.breaking.messages import records_of, tree_of
from benchmarks.breaking.models import examples, members_of, packed
from benchmarks.breaking.trying import Door, Wrong, check_end
from wattfed.client.agent.framing import GATE_SUFFIX, framed
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.wire import NODE_CONFIG, RUN_CONFIG, parts_of
from wattfed.client.tasks.federated import federated
from wattfed.strategies.code_version import code_version
from wattfed.strategies.protocol import (
    ARRAYS,
    CONFIG,
    PROTOCOL,
    ROUND,
    VERSION,
    RoundAssignment,
    encode_record,
)
from wattfed.strategies.run_config import RunConfig

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 600.0  # on a machine that does much else
_ANSWER_S = 15.0  # of a call, which then ends of itself: within a case's time
_LOADED_S = 150.0  # in which a process has loaded torch and a model, or is ended
_MODELS = {"TorchScript": "script.ts", "torch.export": "export.pt2", "a state dict": "state.pt"}
_MOST_KB = 3_000_000  # of the agent's memory, torch among it
_WRONG = ("UNKNOWN", "INTERNAL")
_PACKAGE = pb.DESCRIPTOR.package


class Agent:
    """An agent in a process of its own, started again where a case has ended it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = str(folder / "a.sock")
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._served: set[str] = set()

    def start(self) -> None:
        """Start it unless it runs, and wait until it serves."""
        if self._process is not None and self._process.poll() is None:
            return
        self._served.clear()
        words = ["serve", "--socket", self.socket, "--state-dir", str(self._folder / "state")]
        for name, (data, _) in examples().items():
            path = self._folder / _MODELS[name]
            path.write_bytes(data)
        words += ["--model", f"digits={self._folder / _MODELS['a state dict']},task=digits"]
        words += ["--threads", "1", "--latency", "1s"]
        command = [sys.executable, "-m", "wattfed.client.agent.cli", *words]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=_ROOT, stderr=log, stdout=log)
        end_s = time.monotonic() + _START_S
        while "serving at" not in self.log.read_text():
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise AssertionError(self.log.read_text())
            time.sleep(0.1)

    def serve(self, name: str) -> None:
        """Start it, and have it serve an example of a format, unless it does."""
        self.start()
        if name in self._served:
            return
        path = self._folder / _MODELS[name]
        request = pb.LoadModelRequest(name=path.stem, path=str(path))
        if path.suffix == ".pt":
            request.task = "digits"
        elif path.suffix == ".ts":
            request.inputs = "3"
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            load = channel.unary_unary(f"/{_PACKAGE}.Inference/LoadModel")
            load(request.SerializeToString(), timeout=_LOADED_S)
        self._served.add(name)

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_S)

    def check(self, logged: int) -> None:
        """Hold it to having logged no traceback since, and to its memory."""
        assert self._process is not None
        check_end(0, self.log.read_bytes()[logged:].decode(errors="replace"))
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        if "VmRSS" not in status:  # a dead process, of which nobody has heard
            raise Wrong("the agent has ended")
        kilobytes = int(status.split("VmRSS:")[1].split()[0])
        if kilobytes > _MOST_KB:
            raise Wrong(f"the agent has more than {_MOST_KB} kB\n{kilobytes}")


def doors(stack: ExitStack) -> Iterator[Door]:
    """Each call with a valid message, by its fields and as bytes; and the gate's own socket."""
    agent = Agent(Path(stack.enter_context(TemporaryDirectory(prefix="wattfed-agent-"))))
    stack.callback(agent.close)
    code_version()
    pixels = np.zeros((1, 8, 8), np.float32)
    tensor = {"dtype": 1, "shape": [1, 8, 8], "data": pixels.tobytes()}
    predict = {"id": 1, "model": "digits", "inputs": [tensor], "deadline_s": 1.0}
    join = {"join": {"name": "me", "kind": 2, "expected_s": 0.01, "lease_s": 0.1}}
    turns: list[dict[str, Any]] = [join, {"acquire": {"turn": 1}}, {"release": {"turn": 1}}]
    load = {"name": "more", "path": "state.pt", "task": "digits", "latency_s": 0.5}
    calls: dict[str, list[Any]] = {
        "Inference/Predict": [predict],
        "Inference/PredictStream": [predict, {**predict, "id": 2}],
        "Inference/LoadModel": [load],
        "Inference/ReloadModel": [{"name": "digits", "path": ""}],
        "Gate/Turns": turns,
        "Power/GetStatus": [{}],
        "Power/Telemetry": [{"period_s": 0.2}],
        "Rounds/Cancel": [{"round_id": "7/1/0", "reason": "why"}],
    }
    for name, messages in calls.items():
        kind = _kind_of(name)
        yield Door(
            name, messages, partial(_call, agent, name, partial(_of_fields, kind)), agent.start
        )
        raw = [kind(**fields).SerializeToString() for fields in messages]
        yield Door(f"{name}, bytes", raw, partial(_call, agent, name, bytes), agent.start)
    frames = b"".join(framed(pb.TurnRequest(**turn).SerializeToString()) for turn in turns)
    yield Door(
        "the gate's socket",
        frames,
        partial(_send, agent),
        agent.start,
    )
    for name, (data, _) in examples().items():
        goes = partial(_reload, agent, name)
        yield Door(
            f"{name} at an agent", members_of(data), goes, partial(agent.serve, name), _LOADED_S
        )
    for kind_name in ("query", "train", "evaluate"):
        example = _handled(kind_name)
        yield Door(f"Rounds/Handle, {kind_name}", example, partial(_handle, agent), agent.start)


def _handled(kind: str) -> dict[str, Any]:
    """A message of the server to a ClientApp, and what the ClientApp adds."""
    told = {"is": "config", ROUND: 1, PROTOCOL: VERSION, "clock-s": 0.0, "run-id": "7"}
    if kind == "train":
        told |= encode_record(RoundAssignment(0, 2, 60.0, power="fastest"))
    config = RunConfig(task="digits", local_epochs=1).to_flower()
    node = {"is": "config", "partition-id": 0, "num-partitions": 5, "run-id": "7"}
    records: dict[str, Any] = {
        CONFIG: told,
        RUN_CONFIG: {"is": "config", **config},
        NODE_CONFIG: node,
    }
    if kind != "query":
        model = federated(RunConfig(task="digits"), 1).model()
        records |= tree_of(RecordDict({ARRAYS: ArrayRecord(model.state_dict())}))
    head = {"protocol": VERSION, "code": code_version(), "kind": kind, "round_id": "7/1/0"}
    return {"head": head, "records": records}


def _handle(agent: Agent, case: dict[str, Any]) -> str:
    try:
        head = pb.Part(head=pb.Head(**case["head"]))
        parts = [head, *parts_of(records_of(case["records"]))]
    except Exception:  # whatever protobuf and Flower say to what they do not carry
        return "cannot be sent"
    raw = [part.SerializeToString() for part in parts]
    return _call(agent, "Rounds/Handle", bytes, raw)


def _kind_of(name: str) -> Any:
    service, method = name.split("/")
    input_type = pb.DESCRIPTOR.services_by_name[service].methods_by_name[method].input_type
    return getattr(pb, input_type.name)


def _of_fields(kind: Any, fields: Any) -> bytes:
    data: bytes = kind(**fields).SerializeToString()
    return data


def _reload(agent: Agent, name: str, case: Any) -> str:
    """Have a model read from a damaged archive, in place of one that is served."""
    path = Path(_MODELS[name]).absolute()
    path.write_bytes(packed(case))
    request = pb.ReloadModelRequest(name=path.stem, path=str(path)).SerializeToString()
    word = _call(agent, "Inference/ReloadModel", bytes, [request], _LOADED_S)
    sample = pb.Tensor(dtype=pb.FLOAT32, shape=[1, 8, 8], data=bytes(256))
    predict = pb.PredictRequest(model="digits", inputs=[sample], deadline_s=_ANSWER_S)
    if _call(agent, "Inference/Predict", bytes, [predict.SerializeToString()]) != "taken":
        raise Wrong("another model does not answer")
    return word


def _call(
    agent: Agent,
    name: str,
    serialized: Callable[[Any], bytes],
    case: Any,
    answer_s: float = _ANSWER_S,
) -> str:
    """Make a call with some messages; the agent must answer, or say what is wrong with them."""
    try:
        messages = [serialized(one) for one in case]
    except Exception:  # whatever protobuf says to what it does not carry
        return "cannot be sent"
    logged = agent.log.stat().st_size
    word, begun_s = "taken", time.monotonic()
    with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        path = f"/{_PACKAGE}.{name}"
        service, method = name.split("/")
        described = pb.DESCRIPTOR.services_by_name[service].methods_by_name[method]
        sends_one = not described.client_streaming
        try:
            if sends_one and described.server_streaming:
                next(channel.unary_stream(path)(messages[0] if messages else b"", timeout=answer_s))
            elif sends_one:
                channel.unary_unary(path)(messages[0] if messages else b"", timeout=answer_s)
            else:
                list(channel.stream_stream(path)(iter(messages), timeout=answer_s))
        except grpc.RpcError as error:
            code = error.code().name
            if code in _WRONG:
                raise Wrong(f"{name} is {code}: {error.details():.100}") from None
            if time.monotonic() - begun_s >= answer_s:
                raise Wrong(f"{name} does not answer") from None
            word = "refused"
        path = f"/{_PACKAGE}.Power/GetStatus"
        pb.Status.FromString(channel.unary_unary(path)(b"", timeout=_ANSWER_S))
    agent.check(logged)
    return word


def _send(agent: Agent, case: Any) -> str:
    """Write bytes to the gate's socket; it answers, or hangs up."""
    if not isinstance(case, bytes):
        return "cannot be sent"
    data = case
    logged = agent.log.stat().st_size
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(agent.socket + GATE_SUFFIX)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except OSError:
            answer = b""
    agent.check(logged)
    return "taken" if answer else "refused"
