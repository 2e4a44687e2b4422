"""A real agent in a thread of its own, small models on disc, and processes that hold the gate."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import torch

from tests import warm
from tests.client.agent.constant_task import Constant
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import model_host, rpc
from wattfed.client.agent.gate_holders import LONGEST_LEASE_S
from wattfed.client.agent.opening import open_kept
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.registry import Registry
from wattfed.client.agent.server import Agent
from wattfed.client.agent.settings import AgentLimits, ModelFile, Settings
from wattfed.client.agent.tensors import encode_tensor

ROOT = Path(__file__).resolve().parents[3]
PATIENT = AgentLimits(load_s=TIMEOUT_S, batch_s=TIMEOUT_S)  # also on a busy machine
CONSTANT = "tests.client.agent.constant_task:ConstantTask"


class AgentThread:
    """An agent on an event loop of its own."""

    def __init__(self, settings: Settings, metrics=None) -> None:
        self.settings = settings
        self.where = ""
        self._metrics = metrics
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._open())

    @property
    def socket(self) -> str:
        return self.settings.socket

    @property
    def registry(self) -> Registry:
        """Its models, which any thread may ask."""
        return self._agent._registry

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"unix:{self.socket}", options)

    def close(self) -> None:
        self._run(self._agent.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    async def _open(self) -> None:
        device = open_kept(self.settings.device, Path(self.settings.state_dir))
        self._agent = Agent(self.settings, device, self._metrics)
        self.where = await self._agent.open()


@pytest.fixture
def constant(tmp_path):
    """Write a model that answers with a number: as a state dict, or TorchScript by its name."""

    def write(value: float, form: str = "pt") -> str:
        path = str(tmp_path / f"constant{value:g}.{form}")
        if form == "pt":
            torch.save(Constant(value).state_dict(), path)
        else:
            torch.jit.script(Constant(value)).save(path)
        return path

    return write


@pytest.fixture
def settings(tmp_path, constant) -> Settings:
    model = ModelFile("constant", constant(1), CONSTANT, latency_s=TIMEOUT_S, largest_batch=8)
    return Settings(
        socket=str(tmp_path / "a.sock"),
        state_dir=str(tmp_path),
        lease_s=LONGEST_LEASE_S,
        limits=PATIENT,
        model=(model,),
    )


@pytest.fixture
def warm_models(monkeypatch):
    """Processes of models start with torch loaded; only their command line is another."""
    started = SimpleNamespace(**{**vars(subprocess), "Popen": warm.Popen})
    monkeypatch.setattr(model_host, "subprocess", started)


@pytest.fixture
def start():
    """Start agents, and stop them at the end."""
    agents = []

    def run(settings: Settings, observer=None, **changes) -> AgentThread:
        agents.append(AgentThread(replace(settings, **changes), observer))
        return agents[-1]

    yield run
    for agent in agents:
        if agent._thread.is_alive():
            agent.close()


@pytest.fixture
def agent(start, settings) -> AgentThread:
    return start(settings)


@pytest.fixture
def stub(agent):
    with agent.channel() as channel:
        yield rpc.InferenceStub(channel)


def request(value: float = 0.0, **fields) -> pb.PredictRequest:
    """A sample for the model of the fixtures."""
    return pb.PredictRequest(inputs=[encode_tensor(torch.full((2, 2), value))], **fields)


def status_of(call) -> grpc.StatusCode:
    """The status that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


@contextmanager
def process(code: str, *arguments: str):
    """A Python process that prints a line when it has come somewhere; killed in the end."""
    command = [sys.executable, "-u", "-c", code, *arguments]
    child = warm.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
