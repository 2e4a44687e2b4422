"""A federation in which one node has an agent: it trains and serves at the same time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import grpc
import pytest
import torch

from client.agent import tensors
from client.agent.proto import agent_pb2 as pb
from client.agent.proto import agent_pb2_grpc as rpc
from client.tasks.task import load_task
from strategies.run_config import RunConfig
from tests.federation import COMPLETED, Federation
from tests.server.test_flower import ROOT, reports


@pytest.fixture
def socket(tmp_path):
    """Of an agent in a process of its own that serves digits."""
    torch.save(load_task("digits").model().state_dict(), tmp_path / "digits.pt")
    path = tmp_path / "a.sock"
    command = [sys.executable, "-m", "client.agent.cli", "serve", "--socket", str(path)]
    command += ["--state-dir", str(tmp_path / "state"), "--latency", "500ms"]
    command += ["--model", f"digits={tmp_path / 'digits.pt'},task=digits"]
    agent = subprocess.Popen(command, cwd=ROOT)
    deadline_s = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline_s:
        assert agent.poll() is None, "the agent has ended"
        time.sleep(0.1)
    yield str(path)
    agent.terminate()
    assert agent.wait(20) == 0


class Load:
    """Requests one after another, ten a second, until it is stopped."""

    def __init__(self, socket: str) -> None:
        self.versions: list[int] = []
        self.latencies_s: list[float] = []
        self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(socket,))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, socket: str) -> None:
        sample = tensors.encode(load_task("digits").test_samples().inputs[0])
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            stub = rpc.InferenceStub(channel)
            while not self._stop.wait(0.1):
                started = time.perf_counter()
                try:
                    reply = stub.Predict(pb.PredictRequest(inputs=[sample]), timeout=5)
                except grpc.RpcError:
                    self.refused += 1
                    continue
                self.latencies_s.append(time.perf_counter() - started)
                self.versions.append(reply.model_version)


def test_a_node_with_an_agent_trains_while_it_serves(tmp_path, socket):
    nodes = [
        {"partition-id": 0, "num-partitions": 2, "agent": socket},
        {"partition-id": 1, "num-partitions": 2, "device": "twin:orin-nano"},
    ]
    config = RunConfig(
        rounds=2,
        per_round=2,
        strategy="all",
        local_epochs=1,
        min_nodes=2,
        dirichlet_alpha=5.0,
        out_dir=str(tmp_path / "runs"),
        name="agents",
    )
    with Load(socket) as load, Federation(tmp_path / "federation", nodes) as federation:
        result = federation.run(ROOT, config.to_flower())
    assert result.status == COMPLETED, result.log
    told = reports(tmp_path / "runs" / "agents")
    assert [(r["round"], r["client"]) for r in told] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(r["minibatches"] == r["wanted_minibatches"] for r in told if r["client"] == 0)
    assert all(0 < r["inference_p99_s"] < 0.5 for r in told if r["client"] == 0)
    assert all(r["inference_p99_s"] == 0 for r in told if r["client"] == 1)
    # each round brought a global model, which is served from then on
    assert load.versions == sorted(load.versions) and load.versions[-1] == 3
    assert load.refused <= 0.05 * len(load.versions)
