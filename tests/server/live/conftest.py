from __future__ import annotations

import threading

import pytest

from tests.waiting import TIMEOUT_S
from wattfed.server.engines.simulation import simulate
from wattfed.server.live.run import LiveRun
from wattfed.server.live.web import WatchServer
from wattfed.strategies.run_config import RunConfig

FLEET = """\
[[group]]
board = "orin-agx"
count = 2
power_w = 30
energy_budget_j = 2000
[[group]]
board = "orin-nano"
count = 2
power_w = 10
"""


class RunningRun:
    """A simulation in a thread, which goes on when it is told to."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._may_go, self._has_written = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=simulate, args=(config, self._on_row), daemon=True)
        self._thread.start()
        self._wait()  # for the initial model

    def _on_row(self, _row) -> None:
        self._has_written.release()
        self._may_go.acquire()

    def _wait(self) -> None:
        assert self._has_written.acquire(timeout=TIMEOUT_S)

    def go_on(self, rounds: int = 1) -> None:
        """Let it train some rounds more, and wait until they are written."""
        for _ in range(rounds):
            self._may_go.release()
            self._wait()

    def finish(self) -> None:
        """Let it go on to its end."""
        self._may_go.release(self.config.rounds + 1)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("fleets") / "four.toml"
    path.write_text(FLEET)
    return str(path)


@pytest.fixture
def running(tmp_path, fleet):
    """A run of four rounds that has evaluated its initial model."""
    config = RunConfig(
        task="noop", fleet=fleet, rounds=4, per_round=2, strategy="random", workers=1,
        local_epochs=1, out_dir=str(tmp_path / "runs"), name="mine",
    )  # fmt: skip
    run = RunningRun(config)
    yield run
    run.finish()


@pytest.fixture
def folder(running, tmp_path):
    return tmp_path / "runs" / "mine"


@pytest.fixture
def served(running, folder):
    """The server of the running run."""
    with WatchServer(LiveRun(folder), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
