"""An agent that is killed in the middle of a round, as the kernel does: a real process, SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import grpc
import pytest
from flwr.app import ArrayRecord

from benchmarks.in_process_grid import InProcessGrid
from tests import warm
from tests.client.agent.conftest import ROOT
from tests.tasks import load_task
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client import forwarding
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.app import app
from wattfed.client.worker import memory_fit as rooms
from wattfed.client.worker.client_state import ClientState, StateFile
from wattfed.client.worker.memory_fit import UnboundedMemory, how_killed
from wattfed.strategies.policies.catalogue import make_policy
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

CONFIG = RunConfig(strategy="all", per_round=2, local_epochs=1)


class AgentProcess:
    """An agent in a process of its own, on a twin that is held to the real clock."""

    def __init__(self, folder):
        self.socket = str(folder / "a.sock")
        self.states = folder / "state" / "clients"
        self._command = [sys.executable, "-m", "wattfed.client.agent.cli", "serve"]
        self._command += ["--device", "twin:orin-agx", "--socket", self.socket]
        self._command += ["--state-dir", str(folder / "state")]
        self.start()

    def start(self):
        self._process = warm.Popen(self._command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert any(line.startswith("serving at") for line in self._process.stderr)

    def end(self, number=signal.SIGTERM):
        self._process.send_signal(number)
        self._process.wait(TIMEOUT_S)
        self._process.stderr.close()

    def await_training(self):
        """Until a round has had two turns."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            status = rpc.PowerStub(channel).GetStatus
            await_state(lambda: any(job.turns > 1 for job in status(pb.StatusRequest()).jobs))


@pytest.fixture
def agent(tmp_path):
    agent = AgentProcess(tmp_path)
    yield agent
    if agent._process.poll() is None:
        agent.end()


class Run(threading.Thread):
    """A federation of one client with an agent and one without, in rounds as Flower drives them."""

    def __init__(self, agent, rounds):
        super().__init__()
        strategy = SelectingStrategy(make_policy(CONFIG), make_aggregation(CONFIG), per_round=2)
        self.ledger = strategy.ledger
        grid = InProcessGrid(app, 2, CONFIG.to_flower())
        grid.context(2).node_config["agent"] = agent.socket
        arrays = ArrayRecord(load_task("digits").model().state_dict())
        self._go = lambda: strategy.start(grid, arrays, num_rounds=rounds)
        self.start()

    def run(self):
        self._go()

    def reports(self, server_round):
        return {report.client: report for report in self.ledger.reports_of(server_round)}


def test_an_agent_that_was_killed_reports_its_round_as_lost_and_goes_on_with_the_next(agent):
    run = Run(agent, rounds=2)
    agent.await_training()
    agent.end(signal.SIGKILL)
    (path,) = agent.states.glob("*.json")
    left = StateFile(path).read()
    assert left.under_way == "1/1/0" and left.spent_j > 0  # as planned, since nothing measured it
    agent.start()
    run.join(TIMEOUT_S)
    first, second = (run.reports(server_round) for server_round in (1, 2))
    assert first[0].lost.startswith("the agent was killed during round 1")
    assert not first[0].minibatches and first[1].minibatches and not first[1].lost
    assert (run.ledger.entries[0].failed, run.ledger.entries[1].failed) == (1, 0)
    assert second[0].minibatches == second[0].wanted_minibatches and not second[0].lost
    state = StateFile(path).read()
    assert state.under_way == "" and state.spent_j == left.spent_j + second[0].energy_j


def test_an_agent_that_does_not_come_back_costs_its_client_the_round_after_a_while(
    agent, monkeypatch, caplog
):
    monkeypatch.setattr(forwarding, "_PATIENCE_S", 0.5)
    run = Run(agent, rounds=1)
    agent.await_training()
    agent.end(signal.SIGKILL)
    run.join(TIMEOUT_S)
    assert list(run.reports(1)) == [1] and run.ledger.entries[0].failed == 1
    assert "it did not come back within 0.5 s" in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (4, 5, ", out of memory by the kernel's count"),
        (4, 4, ", not for want of memory by the kernel's count"),
        (4, 0, ", not for want of memory by the kernel's count"),  # the machine has booted since
        (-1, 5, " (out of memory? the kernel does not say)"),
        (4, -1, " (out of memory? the kernel does not say)"),
    ],
)
def test_how_it_was_killed_is_told_by_the_kernels_count(monkeypatch, before, after, told):
    learned = []
    monkeypatch.setattr(rooms, "oom_kills", lambda: after)
    monkeypatch.setattr(UnboundedMemory, "learn", lambda self, fitted: learned.append(fitted))
    state = ClientState(under_way="7/3/0", oom_kills=before)
    assert how_killed(UnboundedMemory(), state) == told
    assert learned == [False] * told.startswith(", out of memory")
    how_killed(UnboundedMemory(), state)
    assert len(learned) <= 1  # a kill is learned from once
