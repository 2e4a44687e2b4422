"""Flower's own commands as processes: offline, with a home of their own, and ended for certain."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.toml_writing import toml_text

COMPLETED = "finished:completed"
_LINK = "own"
_MARK = "WATTFED_FLOWER_MARK"
_START_S = _COMMAND_S = 600.0  # seconds on an idle machine, a minute on a busy one
_END_S = 8.0
_POLL_S = 0.1
_TAIL_LINES = 30
_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # or a run without internet fails
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
}
ONE_PORT_SINCE = (1, 37)  # a SuperLink has one port for all its APIs
_PORTS = (20_000, 32_768)  # Linux gives those above


@dataclass(frozen=True)
class FlowerPorts:
    """Where a SuperLink listens, and the options with which Flower's commands take that.

    Since Flower 1.37 that is one HTTP port for everything; before, one gRPC port for each API.

    Attributes
    ----------
    fleet, control, server_app : str
        ``HOST:PORT`` for SuperNodes, for the ``flwr`` command, and for ServerApps.
    """

    fleet: str
    control: str
    server_app: str

    @property
    def superlink_options(self) -> tuple[str, ...]:
        """Where to listen, for ``flower-superlink``."""
        if self.fleet == self.control:
            host, _, port = self.fleet.rpartition(":")
            return ("--host", host, "--port", port)
        return (
            *("--fleet-api-address", self.fleet, "--control-api-address", self.control),
            *("--serverappio-api-address", self.server_app),
        )

    def supernode_options(self) -> tuple[str, ...]:
        """A free port for a SuperNode's own ClientApps, for ``flower-supernode``."""
        host = self.fleet.rpartition(":")[0]
        if self.fleet == self.control:
            return ("--host", host, "--port", str(free_port()))
        return ("--clientappio-api-address", f"{host}:{free_port()}")


def flower_ports(host: str) -> FlowerPorts:
    """Free ports of a host for a SuperLink of the installed Flower."""
    if flower_version() >= ONE_PORT_SINCE:
        return FlowerPorts(*3 * [f"{host}:{free_port()}"])
    return FlowerPorts(*(f"{host}:{free_port()}" for _ in range(3)))


def flower_version() -> tuple[int, int]:
    """Major and minor version of the Flower that is installed."""
    major, minor, *_ = importlib.metadata.version("flwr").split(".")
    return int(major), int(minor)


def free_port() -> int:
    """A port of loopback that nobody listens on just now.

    None of those that the system gives to whoever connects: one could be taken before who it is for
    has started, or while it starts again.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class FlowerRunFailed(PowerctlError):
    """A run on Flower's runtimes that did not complete, or could not be started."""


class FlowerTools:
    """Flower's commands, offline, with a home of their own; closing ends all they started.

    Every process carries a mark in its environment, so that also what Flower and Ray start is found
    and ended.

    Parameters
    ----------
    folder : Path
        For Flower's home (``home``) and the processes' logs.
    programs : Path, optional
        Folder of Flower's commands; usually that of the running Python, whatever PATH says.
    popen : callable
        What starts a process that stays, as `subprocess.Popen` does.
    """

    def __init__(
        self,
        folder: Path,
        programs: Path | None = None,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self.folder = folder
        self._popen = popen
        self._programs = programs or Path(sys.executable).parent
        self._mark = uuid.uuid4().hex
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "home").mkdir(parents=True)

    def __enter__(self) -> FlowerTools:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def environment(self, home: str = "home", name: str = "") -> dict[str, str]:
        """The environment of Flower's commands: no telemetry, nothing installed, nothing asked."""
        return {
            **os.environ,
            **_SWITCHES,
            _MARK: f"{self._mark}/{name}/",
            "FLWR_HOME": str(self.folder / home),
            "PATH": f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def resolved(self, command: Sequence[str]) -> list[str]:
        """A command with the path of its program."""
        program = self._programs / command[0]
        if not program.exists():
            raise FlowerRunFailed(
                f"{program} is missing; install Flower: pip install 'wattfed[sim]'"
            )
        return [str(program), *command[1:]]

    def start(
        self,
        name: str,
        *command: str,
        home: str = "home",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process that stays, with its output in ``NAME.log``."""
        with self.log(name).open("wb") as log:
            process = self._popen(
                self.resolved(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment(home, name), **(env or {})},
                cwd=cwd or self.folder,
                start_new_session=True,
            )
        self._started[name] = process
        return process

    def kill(self, name: str) -> None:
        """End a process and all that it started at once, as a power cut does."""
        self._started[name].kill()
        self._started[name].wait()
        for pid in _pids_with(f"{self._mark}/{name}/"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.folder / f"{name}.log"

    def await_superlink(
        self, process: subprocess.Popen[bytes], ports: FlowerPorts, authority: Path | None = None
    ) -> None:
        """Wait until a SuperLink listens, and make it the one that the commands talk to.

        Parameters
        ----------
        process : Popen
            The SuperLink.
        ports : FlowerPorts
            Where it is to listen.
        authority : Path, optional
            The certificate to know it by; without one, no TLS.

        Raises
        ------
        FlowerRunFailed
            If it ends, or does not listen within ten minutes; with the end of its log.
        """
        give_up = time.monotonic() + _START_S
        while not all(map(_listens, (ports.control, ports.fleet))):
            if process.poll() is not None or time.monotonic() > give_up:
                raise FlowerRunFailed(
                    f"the SuperLink did not start:\n{tail(self.log('superlink'))}"
                )
            time.sleep(_POLL_S)
        lines = ["[superlink]", f'default = "{_LINK}"', f"[superlink.{_LINK}]"]
        lines.append(f'address = "{ports.control}"')
        if authority:
            lines.append(f"root-certificates = {json.dumps(str(authority.resolve()))}")
        else:
            lines.append("insecure = true")
        (self.folder / "home" / "config.toml").write_text("\n".join(lines) + "\n")

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """The JSON answer of a ``flwr`` command to the SuperLink."""
        command = ["flwr", *arguments, "--format", "json"]
        done = subprocess.run(
            self.resolved(command),
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=_COMMAND_S,
            check=False,
        )
        with contextlib.suppress(json.JSONDecodeError):
            answer: dict[str, Any] = json.loads(done.stdout[done.stdout.find("{") :])
            if answer.get("success", True):
                return answer
        raise FlowerRunFailed(f"{' '.join(command)} failed: {done.stdout}{done.stderr}".strip())

    def submit(
        self,
        app_dir: Path,
        run_config: Mapping[str, Any],
        *arguments: str,
        relay: Callable[[str], None] | None = None,
    ) -> SubmittedRun:
        """Hand an app to the SuperLink and follow its log."""
        return SubmittedRun(self, app_dir, run_config, arguments, relay)

    def close(self) -> None:
        """End every process, first with a request and then by force; returns within seconds.

        SuperNodes before their SuperLink, which they take leave of.
        """
        started = list(self._started.values())
        for processes in (started[1:], started[:1]):
            for process in processes:
                process.terminate()
            _within(_END_S, partial(_have_ended, processes))
        for force in (signal.SIGTERM, signal.SIGKILL):
            for pid in _pids_with(f"{self._mark}/"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, force)
            _within(_END_S, lambda: not _pids_with(f"{self._mark}/"))
        for process in started:
            process.wait()


class SubmittedRun:
    """A run that was handed to a SuperLink; `log` grows while it goes on."""

    def __init__(
        self,
        tools: FlowerTools,
        app_dir: Path,
        run_config: Mapping[str, Any],
        arguments: tuple[str, ...],
        relay: Callable[[str], None] | None,
    ) -> None:
        self._tools = tools
        self._relay = relay
        self._lines: list[str] = []
        overrides = tools.folder / f"run-config-{uuid.uuid4().hex[:8]}.toml"
        for key, value in run_config.items():
            if not isinstance(value, str | bool | int | float):
                raise InvalidInput(f"{key}: Flower takes str, bool, int or float, not {value!r}")
        overrides.write_text(toml_text(run_config))
        command = ["flwr", "run", str(app_dir), _LINK, "--stream", "--run-config", str(overrides)]
        self._process = subprocess.Popen(
            tools.resolved([*command, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=tools.environment(),
        )
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    @property
    def log(self) -> str:
        """What ``flwr run`` has printed so far."""
        return "".join(self._lines)

    @property
    def run_id(self) -> str | None:
        """Flower's id of the run; None until it is started, or if it could not be."""
        started = re.search(r"Successfully started run (\d+)", self.log)
        return started[1] if started else None

    def wait(self, superlink: subprocess.Popen[bytes], timeout_s: float | None = None) -> str:
        """Wait for the end of the run.

        Parameters
        ----------
        superlink : Popen
            Its SuperLink: without it, the log would never end.
        timeout_s : float, optional
            Wall-clock seconds to wait; None waits as long as the run takes.

        Returns
        -------
        str
            The run's status, such as ``finished:completed``.

        Raises
        ------
        FlowerRunFailed
            If the run could not be started, the SuperLink ended, or the time is over.
        """
        give_up = time.monotonic() + (timeout_s if timeout_s is not None else float("inf"))
        try:
            while self._process.poll() is None:
                if superlink.poll() is not None:
                    log = tail(self._tools.log("superlink"))
                    raise FlowerRunFailed(f"the SuperLink ended during the run:\n{log}")
                if time.monotonic() > give_up:
                    end = "".join(self._lines[-_TAIL_LINES:])
                    raise FlowerRunFailed(f"the run did not end within {timeout_s:g} s:\n{end}")
                time.sleep(_POLL_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._follower.join(timeout=_END_S)
        if self.run_id is None:
            raise FlowerRunFailed(f"Flower did not take the app:\n{self.log.strip()}")
        (run,) = self._tools.flwr("ls", _LINK, "--run-id", self.run_id)["runs"]
        return str(run["status"])

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if self._relay is not None:
                self._relay(line.rstrip("\n"))


def tail(log: Path, n_lines: int = _TAIL_LINES) -> str:
    """The last lines of a log, under its path."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join([f"{log}:", *lines[-n_lines:]])


def _have_ended(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    return all(process.poll() is not None for process in processes)


def _within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition came true in time."""
    give_up = time.monotonic() + timeout_s
    while not (true := condition()) and time.monotonic() < give_up:
        time.sleep(_POLL_S)
    return true


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2.0).close()
    except OSError:
        return False
    return True


def _pids_with(mark: str) -> list[int]:
    """Processes whose environment has a mark; none where there is no /proc."""
    pids = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes():
                pids.append(int(environment.parent.name))
    return pids
