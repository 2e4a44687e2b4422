"""The socket: garbage changes nothing, load delays no restore, and what systemd is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from powerctl.daemon.board_lock import BoardLock
from powerctl.daemon.listening import Listener, daemon_socket
from powerctl.daemon.messages import Request, parse_request
from powerctl.daemon.peers import Admission
from powerctl.daemon.server import ConnectionLimits, Server
from powerctl.daemon.systemd import unit
from powerctl.errors import InvalidInput
from powerctl.fakes.making import make_fake_board
from tests.powerctl.daemon.conftest import COMMAND, Process, raw, read_all
from tests.powerctl.jetson.conftest import settings
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def served():
    """A board, and its daemon."""
    folder = Path(tempfile.mkdtemp())
    board = make_fake_board("orin-agx", "5.1", folder / "board")
    daemon = Process(COMMAND, "daemon", "--root", board.root)
    daemon.expect("serves at")
    yield board, daemon, settings(board)
    daemon.close()
    shutil.rmtree(folder)


def is_request(line):
    try:
        return bool(parse_request(line))
    except InvalidInput:
        return False


def unharmed(served):
    board, daemon, before = served
    assert daemon.process.poll() is None
    with raw(board.root) as channel:
        channel.sendall(Request("read").encode())
        seen = json.loads(channel.makefile().readline())
    return seen["holder"] is None and settings(board) == before


def converse(board, content):
    """Send bytes and an end, and read what comes back; the daemon may hang up before."""
    with raw(board.root) as channel:
        try:
            channel.sendall(content)
            channel.shutdown(socket.SHUT_WR)
            return read_all(channel)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def altered(line, at, replacement):
    return line[: at % len(line)] + replacement + line[at % len(line) + 1 :]


requests = st.sampled_from(
    [
        *(Request(verb).encode() for verb in ("hold", "read", "restore")),
        b'{"verb":"apply","mode":[12,2201600,1300500000,3199000000]}\n',
    ]
)
garbage = st.one_of(
    st.binary(max_size=600),
    st.builds(altered, requests, st.integers(0, 100), st.binary(max_size=3)),
    st.lists(st.sampled_from([b"{", b"}", b"[", b'"verb"', b":", b",", b'"apply"', b"1", b"\n"]))
    .map(b"".join),
)  # fmt: skip


@given(garbage)
def test_garbage_never_ends_the_daemon_nor_changes_a_clock(served, content):
    assume(not any(is_request(line) for line in content.split(b"\n")))
    answer = converse(served[0], content)
    for line in answer.splitlines():
        assert json.loads(line)["error"] == "bad-request"
    assert unharmed(served)


def test_a_line_without_end_is_cut_off(served):
    with raw(served[0].root) as channel:
        channel.sendall(b"x" * 600)
        assert b"bad-request" in channel.makefile("rb").readline()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                channel.sendall(b"x" * 600)
    assert unharmed(served)


def test_after_what_is_no_request_nothing_more_is_heard(served):
    high = served[0].kernel.state
    mode = [12, high.cpu_khz[-1], high.gpu_hz[-1], high.mem_hz[-1]]
    apply = json.dumps({"verb": "apply", "mode": mode}).encode() + b"\n"
    answer = converse(served[0], b"nonsense\n" + apply)
    assert answer.count(b"\n") == 1 and unharmed(served)


def test_half_a_request_is_no_request(served):
    assert converse(served[0], Request("restore").encode()[:-1]) == b""
    assert unharmed(served)


class Recorder(BoardLock):
    """Notes what it is asked, in order."""

    def __init__(self, sysfs):
        self.asked = []
        super().__init__(sysfs)

    def read(self, client):
        self.asked.append("read")
        return super().read(client)

    def restore(self, client):
        self.asked.append("restore")
        return super().restore(client)


@contextlib.asynccontextmanager
async def serving(board, board_lock, limits):
    """A server in this process."""
    with contextlib.closing(Listener(board.root, daemon_socket(board.root), None)) as listener:
        server = Server(listener, board_lock, Admission("powerctl", None), limits)
        task = asyncio.create_task(server.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def connection(board):
    """A connection that has been served once."""
    reader, writer = await asyncio.open_unix_connection(daemon_socket(board.root))
    await hold(reader, writer)
    return reader, writer


async def hold(reader, writer):
    writer.write(Request("hold").encode())
    assert b"not-held" in await reader.readline()


def test_of_a_thousand_requests_that_wait_few_are_served_before_a_restore(fake):
    """Each of the others has a turn or two before it, however many it has sent."""
    board = fake("orin-agx", "5.1")
    before, board_lock = settings(board), Recorder(board)

    async def crowd():
        async with serving(board, board_lock, ConnectionLimits(at_once=1e9)):
            reader, writer = await connection(board)
            writer.write(Request("apply", board_lock._controller.axes.maximum).encode())
            assert await reader.readline() == b"{}\n"
            others = [await connection(board) for _ in range(20)]
            for _, other in others:  # 20 x 50 requests are there before the restore is
                other.write(Request("read").encode() * 50)
            writer.write(Request("restore").encode())
            assert await reader.readline() == b"{}\n"
            return board_lock.asked.index("restore")

    assert asyncio.run(crowd()) <= 2 * 20
    assert settings(board) == before


def test_beyond_its_rate_a_connection_waits_and_others_do_not(fake):
    board = fake("nano", "4")
    board_lock = Recorder(board)

    async def flood():
        async with serving(board, board_lock, ConnectionLimits(per_s=0.001, at_once=10)):
            _, greedy = await connection(board)
            greedy.write(Request("read").encode() * 40)
            for _ in range(3):
                reader, writer = await connection(board)
                for _ in range(9):
                    await hold(reader, writer)
            return board_lock.asked.count("read")

    assert asyncio.run(flood()) == 9, "and one other request, which makes ten"


def test_one_user_has_so_many_connections_and_no_more(served):
    board = served[0]
    opened = [raw(board.root) for _ in range(ConnectionLimits().of_one_user + 1)]
    for channel in opened[:-1]:
        channel.sendall(Request("hold").encode())
        assert b"not-held" in channel.makefile("rb").readline()
    assert b"too many connections" in read_all(opened[-1])
    for channel in opened:
        channel.close()


def test_systemd_is_told_that_it_serves_lives_and_ends(fake, serve, folder):
    address = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(os.fspath(address))
        systemd.settimeout(TIMEOUT_S)
        daemon = serve(fake("nano", "4").root, NOTIFY_SOCKET=str(address), WATCHDOG_USEC="300000")
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"WATCHDOG=1"
        assert daemon.kill(signal.SIGTERM) == 0
        said = [systemd.recv(100)]
        while said[-1] == b"WATCHDOG=1":
            said.append(systemd.recv(100))
        assert said[-1] == b"STOPPING=1"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_the_unit_is_one_that_systemd_takes_and_finds_safe(tmp_path):
    program = tmp_path / "powerctl"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "powerctl.service"
    file.write_text(unit(str(program)))
    assert f"ExecStart={program} daemon\n" in file.read_text()

    def analyze(*arguments):
        command = ["systemd-analyze", *arguments, str(file)]
        return subprocess.run(command, capture_output=True, text=True)

    verified = analyze("verify", "--man=no")
    assert verified.returncode == 0 and "powerctl.service" not in verified.stderr, verified.stderr
    rated = analyze("security", "--offline=true", "--threshold=20")  # 0 to 100, less is safer
    assert rated.returncode == 0 or "unrecognized option" in rated.stderr, rated.stdout[-200:]
