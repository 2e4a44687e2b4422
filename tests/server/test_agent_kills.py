"""Kills in a federated run, in mid-round: of the agent, then of the ClientApp."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from client.agent.proto import agent_pb2 as pb
from client.agent.proto import agent_pb2_grpc as rpc
from powerctl.jetson.fake_boards import make_fake_board
from powerctl.jetson.sysfs import Sysfs
from strategies.run_config import RunConfig
from tests.federation import Federation
from tests.powerctl.jetson.conftest import settings
from tests.server.test_flower import ROOT

LONG_S = 150  # a busy machine takes minutes for what an idle one does in 30 s


class AgentProcess:
    """An agent of a fake board, in a process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.board = make_fake_board("orin-agx", "6", folder / "board")
        self.found = settings(self.board)
        self.socket = str(folder / "a.sock")
        self._command = [sys.executable, "-m", "client.agent.cli", "serve"]
        self._command += ["--device", f"jetson:{self.board.root}", "--socket", self.socket]
        self._command += ["--state-dir", str(folder / "state")]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if line.startswith("serving at"):
                return
        raise AssertionError("".join(lines))

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        code = self._process.wait(LONG_S)
        self._process.stderr.close()
        return code

    def rounds(self) -> dict[str, int]:
        """Turns by round under way."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            status = rpc.PowerStub(channel).GetStatus(pb.StatusRequest(), timeout=LONG_S)
        return {job.name: job.turns for job in status.jobs if job.kind == pb.TRAIN}

    def await_rounds(self, condition) -> dict[str, int]:
        give_up_s = time.monotonic() + LONG_S
        while not condition(found := self.rounds()):
            assert time.monotonic() < give_up_s, found
            time.sleep(0.1)
        return found

    def now_set(self):
        return settings(Sysfs.open(self.board.root))


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


@pytest.fixture
def agent(tmp_path):
    agent = AgentProcess(tmp_path)
    yield agent
    agent.end(signal.SIGKILL)


def test_a_round_outlives_neither_its_agent_nor_its_client_app(tmp_path, agent):
    nodes = [
        {"partition-id": 0, "num-partitions": 2, "agent": agent.socket, "power-w": 25.0},
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
        name="kills",
    )
    with Federation(tmp_path / "federation", nodes) as federation:
        federation.submit(ROOT, config.to_flower())
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
