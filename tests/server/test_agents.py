"""A federation in which one node has an agent: it trains and serves, dies and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch

from powerctl.devices.roots import open_sysfs
from powerctl.fakes.making import make_fake_board
from tests import warm
from tests.federation import COMPLETED, Federation
from tests.powerctl.jetson.conftest import settings
from tests.server.test_flower import ROOT, reports
from tests.tasks import load_task
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tensors import encode_tensor
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes


class AgentProcess:
    """An agent of a fake board, that serves digits, in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        model = folder / "digits.pt"
        torch.save(load_task("digits").model().state_dict(), model)
        self.board = make_fake_board("orin-agx", "6", folder / "board")
        self.found = settings(self.board)
        self.socket = str(folder / "a.sock")
        self._command = [sys.executable, "-m", "wattfed.client.agent.cli", "serve"]
        self._command += ["--device", f"jetson:{self.board.root}", "--socket", self.socket]
        self._command += ["--state-dir", str(folder / "state"), "--latency", f"{TIMEOUT_S}s"]
        self._command += ["--model", f"digits={model},task=digits"]
        self.start()

    def start(self) -> None:
        self._process = warm.Popen(self._command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if line.startswith("serving at"):
                return
        raise AssertionError("".join(lines))

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        code = self._process.wait(TIMEOUT_S)
        self._process.stderr.close()
        return code

    def await_rounds(self, condition) -> dict[str, int]:
        """Turns by round under way, once they are as wanted."""

        def look():
            status = power.GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S)
            training = [job for job in status.jobs if job.kind == pb.TRAIN and not job.left]
            found = {job.name: job.turns for job in training}
            return [found] if condition(found) else []

        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            power = rpc.PowerStub(channel)
            (found,) = await_state(look)
        return found

    def now_set(self):
        return settings(open_sysfs(self.board.root))


def client_apps(federation: Federation) -> list[int]:
    """Processes of ClientApps that the first SuperNode runs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes()
            home = f"{federation.folder}/node-0-home".encode()
            if b"flwr-clientapp" in words and home in (path.parent / "environ").read_bytes():
                found.append(int(path.parent.name))
    return found


class Load:
    """Requests one after another, at most ten a second, until it is stopped."""

    def __init__(self, socket: str) -> None:
        self.versions: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(socket,))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, socket: str) -> None:
        sample = encode_tensor(load_task("digits").test_samples().inputs[0])
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            stub = rpc.InferenceStub(channel)
            while not self._stop.wait(0.1):
                reply = stub.Predict(pb.PredictRequest(inputs=[sample]), timeout=TIMEOUT_S)
                self.versions.append(reply.model_version)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("agents")


@pytest.fixture(scope="module")
def agent(folder):
    agent = AgentProcess(folder)
    yield agent
    assert agent.end(signal.SIGTERM) == 0


@pytest.fixture(scope="module")
def federation(folder, agent):
    nodes = [
        {"partition-id": 0, "num-partitions": 2, "agent": agent.socket, "power-w": 25.0},
        {"partition-id": 1, "num-partitions": 2, "device": "twin:orin-nano"},
    ]
    with Federation(folder / "federation", nodes) as federation:
        yield federation


@pytest.fixture(scope="module")
def config(folder):
    return RunConfig(
        rounds=2,
        per_round=2,
        strategy="all",
        power="fastest",  # without a deadline, that a busy machine would miss
        local_epochs=1,
        min_nodes=2,
        dirichlet_alpha=5.0,
        out_dir=str(folder / "runs"),
        name="served",
    )


@pytest.fixture(scope="module")
def load(agent, federation, config):
    """Requests during a run of two rounds."""
    with Load(agent.socket) as load:
        result = federation.run(ROOT, config.to_flower())
    assert result.status == COMPLETED, result.log
    return load


def test_a_node_with_an_agent_trains_while_it_serves(load, folder):
    told = reports(folder / "runs" / "served")
    assert [(r["round"], r["client"]) for r in told] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(r["minibatches"] == r["wanted_minibatches"] for r in told if r["client"] == 0)
    assert all(r["inference_p99_s"] > 0 for r in told if r["client"] == 0)
    assert all(r["inference_p99_s"] == 0 for r in told if r["client"] == 1)
    # each round brought a global model, which is served from then on
    assert load.versions == sorted(load.versions) and load.versions[-1] == 3


def test_a_round_outlives_neither_its_agent_nor_its_client_app(federation, agent, config):
    federation.submit(ROOT, replace(config, name="kills").to_flower())
    first = agent.await_rounds(lambda rounds: any(n > 1 for n in rounds.values()))
    assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    assert agent.now_set() != agent.found
    agent.start()
    assert agent.now_set() == agent.found

    # the server has gone on without it, and in the next round it takes part again
    second = agent.await_rounds(lambda rounds: any(n > 1 for n in rounds.values()))
    assert not set(first) & set(second)
    assert agent.now_set() != agent.found
    for process in client_apps(federation):
        os.kill(process, signal.SIGKILL)
    agent.await_rounds(lambda rounds: not rounds)
    assert agent.now_set() == agent.found
