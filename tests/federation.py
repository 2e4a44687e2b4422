"""A real federation on loopback for tests: SuperLink and SuperNodes, TLS, node authentication.

    @pytest.fixture(scope="module")
    def federation(tmp_path_factory):
        nodes = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
        with Federation(tmp_path_factory.mktemp("federation"), nodes) as federation:
            yield federation


    def test_two_jetsons_train(federation):
        result = federation.run(ROOT, {"rounds": 2})
        assert result.status == COMPLETED, result.log

Every process logs to the given folder, which pytest keeps. It starts in about 10 s and a round of
train takes about 6 s: Flower asks for messages every 3 s.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm
from tests.waiting import TIMEOUT_S, await_state
from wattfed.server.deploy.keys import Keys
from wattfed.server.engines.flower_tools import (
    COMPLETED,
    FlowerTools,
    SubmittedRun,
    flower_ports,
    tail,
)

__all__ = ["COMPLETED", "Federation", "RunResult"]

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class RunResult:
    """How a run ended (`COMPLETED`, or another status of ``flwr ls``) and what it logged."""

    status: str
    log: str


class Federation:
    """A SuperLink and one SuperNode per node config, from entering to leaving the context.

    Parameters
    ----------
    folder : Path
        An empty folder for keys, certificates, logs and Flower's homes.
    node_configs : sequence of dict
        What each SuperNode gets as ``--node-config``.
    node_environment : dict, optional
        Environment variables of the SuperNodes, beside those of this process.

    Attributes
    ----------
    ports : FlowerPorts
        Where the SuperLink listens.
    keys : Keys
        Its certificates and the keys of its nodes.
    through : dict of int to str
        Addresses at which nodes, by their number, reach the SuperLink in place of its own.

    Raises
    ------
    FlowerRunFailed
        On entering, if the SuperLink does not start.
    """

    def __init__(
        self,
        folder: Path,
        node_configs: Sequence[Mapping[str, Any]],
        node_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.ports = flower_ports(_HOST)
        self.keys = Keys(folder / "keys")
        self.through: dict[int, str] = {}
        self._tools = FlowerTools(folder, warm.programs(), warm.Popen)
        self._node_configs = node_configs
        self._node_environment = node_environment
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._superlink: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Federation:
        try:
            self._start()
        except BaseException:
            self._tools.close()
            self._show_logs()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._tools.close()
        if kind is not None:
            self._show_logs()

    def run(
        self, app_dir: Path, run_config: Mapping[str, Any], timeout_s: float = TIMEOUT_S
    ) -> RunResult:
        """Run an app to its end; its status says whether it completed.

        Raises
        ------
        FlowerRunFailed
            If the run could not be started, or did not end in time; with what it logged.
        """
        return self.wait(self.submit(app_dir, run_config), timeout_s)

    def submit(self, app_dir: Path, run_config: Mapping[str, Any]) -> SubmittedRun:
        """Start a run, and follow its log."""
        return self._tools.submit(app_dir, run_config)

    def wait(self, run: SubmittedRun, timeout_s: float = TIMEOUT_S) -> RunResult:
        """Wait for the end of a run."""
        assert self._superlink is not None
        return RunResult(run.wait(self._superlink, timeout_s), run.log)

    def kill_node(self, i: int) -> None:
        """Take a SuperNode away at once, with what it started, as a power cut does."""
        self._tools.kill(f"node-{i}")

    def kill_superlink(self) -> None:
        """Take the SuperLink away at once, with its ServerApp."""
        self._tools.kill("superlink")

    def node_log(self, i: int) -> str:
        """What a SuperNode and its ClientApps have printed so far."""
        return self._tools.log(f"node-{i}").read_text(errors="replace")

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it again with the database and ports that it had."""
        certificate, key = self.keys.certificate("server", [_HOST])
        self._superlink = self._tools.start(
            "superlink",
            *("flower-superlink", "--enable-supernode-auth", *self.ports.superlink_options),
            *("--database", str(self.folder / "state.db")),
            *("--ssl-ca-certfile", str(self.keys.authority), "--ssl-certfile", str(certificate)),
            *("--ssl-keyfile", str(key)),
        )
        self._tools.await_superlink(self._superlink, self.ports, self.keys.authority)

    def add_node(self, node_config: Mapping[str, Any]) -> None:
        """Start one more SuperNode, whose key is registered."""
        self._node_configs = [*self._node_configs, node_config]
        self.start_node(len(self._node_configs) - 1)

    def await_log(self, name: str, text: str) -> None:
        """Wait until a process has logged a text."""
        log = self._tools.log(name)
        await_state(lambda: text in log.read_text(errors="replace"))

    def start_stranger(
        self, name: str, *options: str, superlink: str = ""
    ) -> subprocess.Popen[bytes]:
        """Start a SuperNode that nobody registered, or that does not know whom to trust."""
        command = ("flower-supernode", "--superlink", superlink or self.ports.fleet)
        ports = self.ports.supernode_options()
        return self._tools.start(name, *command, *ports, *options, home=f"{name}-home")

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """The JSON answer of a ``flwr`` command to the SuperLink."""
        return self._tools.flwr(*arguments)

    def start_node(self, i: int) -> None:
        """Start a SuperNode, or start it again."""
        pairs = (f"{key}={value!r}" for key, value in self._node_configs[i].items())
        self._nodes[i] = self._tools.start(
            f"node-{i}",
            *("flower-supernode", "--superlink", self.through.get(i, self.ports.fleet)),
            *("--root-certificates", str(self.keys.authority), *self.ports.supernode_options()),
            *("--auth-supernode-private-key", str(self.keys.node(f"node-{i}")[0])),
            *("--node-config", " ".join(pairs)),
            home=f"node-{i}-home",
            env=self._node_environment,
        )

    def _start(self) -> None:
        self.start_superlink()
        for i in range(len(self._node_configs)):
            _, public = self.keys.node(f"node-{i}")
            self._tools.flwr("supernode", "register", str(public))
            self.start_node(i)
        self.await_nodes()

    def await_nodes(self, online: int | None = None) -> None:
        """Wait until as many SuperNodes are online: all, if not said otherwise.

        One that was killed is offline when the SuperLink has noticed, within a minute; one that
        comes back before is refused, and ends.
        """
        wanted = len(self._nodes) if online is None else online

        def are_online() -> bool:
            nodes = self._tools.flwr("supernode", "list")["nodes"]
            return sum(node["status"] == "online" for node in nodes) == wanted

        def all_run() -> bool:
            return all(node.poll() is None for node in self._nodes.values())

        may_come = all_run if online is None else lambda: True
        await_state(are_online, may_come, pause_s=1.0)  # each look is a process

    def _show_logs(self) -> None:
        names = ["superlink", *(f"node-{i}" for i in range(len(self._node_configs)))]
        for name in names:
            print(tail(self._tools.log(name)), file=sys.stderr)
