"""A real daemon in a process of its own, and who talks to it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from powerctl.daemon.listening import daemon_socket
from powerctl.daemon.remote import Daemon
from tests import warm
from tests.powerctl.jetson.conftest import fake, folder  # noqa: F401, fixtures
from tests.waiting import TIMEOUT_S

COMMAND = "import sys; from powerctl.cli import cli; cli(sys.argv[1:])"


class Process:
    """A python process, whose output is waited for."""

    def __init__(self, code, *arguments, **environment):
        self.process = warm.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        self._said = b""

    def expect(self, text):
        """Wait for a text, and give what was said up to it."""
        until, output = time.monotonic() + TIMEOUT_S, self.process.stdout
        while text.encode() not in self._said:
            ready, _, _ = select.select([output], [], [], max(0, until - time.monotonic()))
            part = os.read(output.fileno(), 65536) if ready else b""
            assert part, f"never said {text!r}, but {self._said.decode()!r}"
            self._said += part
        before, _, self._said = self._said.partition(text.encode())
        return before.decode()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start():
    """Start processes, which end with the test."""
    started = []

    def start(code, *arguments, **environment):
        started.append(Process(code, *arguments, **environment))
        return started[-1]

    yield start
    for process in reversed(started):
        process.close()


@pytest.fixture
def serve(start):
    """Start the daemon of a fake board, and wait until it serves."""

    def serve(root, *options, **environment):
        daemon = start(COMMAND, "daemon", "--root", root, *options, **environment)
        daemon.expect("serves at")
        return daemon

    return serve


@pytest.fixture
def connect():
    """Connect to the daemon of a root."""
    opened = []

    def connect(root):
        opened.append(Daemon(daemon_socket(root)))
        return opened[-1]

    yield connect
    for daemon in opened:
        daemon.close()


def raw(root):
    """A bare connection to the daemon of a root."""
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(TIMEOUT_S)
    channel.connect(os.fspath(daemon_socket(root)))
    return channel


def read_all(channel):
    """All that is sent until the other end hangs up."""
    content = b""
    while part := channel.recv(65536):
        content += part
    return content
