"""Real processes: whoever dies, in whatever way, the board is given back; others are refused."""

from __future__ import annotations

import grp
import json
import os
import signal
import socket

import pytest
from click.testing import CliRunner

from powerctl.axes import PowerMode
from powerctl.commands.jetson_board import doctor, restore_command
from powerctl.daemon.listening import Listener, daemon_socket
from powerctl.daemon.messages import Request
from powerctl.daemon.remote import Daemon, RemoteController, find_daemon
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.roots import open_sysfs
from powerctl.doctor.report import examine
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal
from tests.powerctl.daemon.conftest import COMMAND
from tests.powerctl.jetson.conftest import settings

pytestmark = pytest.mark.processes

HOLDER = """
import os, sys
from pathlib import Path
from powerctl.daemon.remote import open_controller
from powerctl.devices.roots import open_sysfs

controller = open_controller(open_sysfs(Path(sys.argv[1])))
controller.apply(controller.axes.maximum)
if "fork" in sys.argv and os.fork() == 0:
    sys.stdout.write("forked")
    sys.stdout.flush()
print("holds", flush=True)
sys.stdin.read()
"""

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from powerctl.cli import cli
from powerctl.fakes.fake_sysfs import FakeSysfs

def kill(sysfs, number, path, text):
    if number == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return text

made = FakeSysfs.__init__
def make(self, root):
    made(self, root)
    self.fault = lambda *write: kill(self, *write)
FakeSysfs.__init__ = make
cli(["daemon", "--root", sys.argv[2]])
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture
def board(fake):
    return fake("orin-nano", "5.1")


def is_as(board, before):
    return settings(board) == before and not Journal(board).found


def test_a_device_is_set_through_the_daemon_and_given_back(board, serve):
    before = settings(board)
    serve(board.root)
    with FakeJetson(board.root) as device:
        assert isinstance(device._controller, RemoteController)
        for mode in (device.space.maximum, device.space.minimum):
            device.apply(mode)
            device.verify()
            assert board.mode() == device.mode() == mode
        device.restore()
        assert is_as(board, before)
        device.apply(device.space.maximum)
    assert is_as(board, before)


def test_a_killed_holder_is_followed_by_a_restore(board, serve, start):
    before = settings(board)
    daemon, holder = serve(board.root), start(HOLDER, board.root)
    holder.expect("holds")
    assert settings(board) != before
    holder.kill()
    daemon.expect("has ended: it has gone")
    assert is_as(board, before)


def test_also_where_a_fork_of_it_lives_on_with_its_connection(board, serve, start):
    before = settings(board)
    daemon, holder = serve(board.root), start(HOLDER, board.root, "fork")
    holder.expect("forked")
    holder.expect("holds")
    holder.kill()
    daemon.expect("has ended: it has gone")
    assert is_as(board, before)


def test_a_holder_that_stands_still_loses_the_board_and_is_told(board, serve, start):
    before = settings(board)
    daemon, holder = serve(board.root, "--hold", "0.4"), start(HOLDER, board.root)
    holder.expect("holds")
    holder.process.send_signal(signal.SIGSTOP)
    daemon.expect("has ended: nothing was heard of it for")
    assert is_as(board, before)


def test_a_holder_that_only_computes_keeps_the_board(board, serve):
    """A thread of its own says that it lives, some times in the time that it has."""
    daemon = serve(board.root, "--hold", "5")
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        beat = device._controller._beat
        beat.join(6.0)
        assert beat.is_alive()
        device.verify()
    assert "nothing was heard" not in daemon.expect("as it wished")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_daemon_that_is_told_to_end_restores_first(board, serve, start, number):
    before = settings(board)
    daemon, holder = serve(board.root), start(HOLDER, board.root)
    holder.expect("holds")
    assert daemon.kill(number) == 0
    assert b"Traceback" not in daemon.process.stdout.read()  # of the connection that it cuts off
    assert is_as(board, before) and not daemon_socket(board.root).exists()


def test_a_killed_daemon_is_undone_by_the_next_and_its_holder_told(board, serve):
    before = settings(board)
    daemon = serve(board.root)
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        daemon.kill()
        assert settings(board) != before
        with pytest.raises(ModeNotInForce, match="the daemon has gone"):
            device.verify()
        serve(board.root)
        assert is_as(board, before)
        with pytest.raises(ModeNotInForce, match="restarted"):
            device.verify()
        device.apply(device.space.minimum)
        device.verify()
    assert is_as(board, before)


@pytest.mark.parametrize("number", [1, 9, 20])
def test_a_daemon_killed_at_a_write_is_undone_by_the_next(board, serve, start, number):
    before = settings(board)
    daemon = start(KILLED_AT, number, board.root)
    daemon.expect("serves at")
    client = Daemon(daemon_socket(board.root))
    with pytest.raises(DeviceUnavailable, match="has gone"):
        for _ in range(9):
            for mode in ("maximum", "minimum"):
                axes = OwnController(board).axes
                client.ask(Request("apply", getattr(axes, mode)))
    assert daemon.process.wait() == -signal.SIGKILL
    assert number == 1 or settings(board) != before
    serve(board.root)
    assert is_as(board, before)
    client.close()


def test_a_connection_that_was_closed_for_being_idle_is_made_again(board, serve):
    serve(board.root)
    with FakeJetson(board.root) as device:
        device._controller._daemon._channel._socket.shutdown(socket.SHUT_RDWR)
        device.apply(device.space.maximum)
        device.verify()


def test_two_daemons_refuse_each_other(board, serve, start, fake, folder):
    serve(board.root)
    second = start(COMMAND, "daemon", "--root", board.root, "--socket", folder / "other.sock")
    second.expect("another powerctl daemon")
    other = fake("nano", "4")
    third = start(COMMAND, "daemon", "--root", other.root, "--socket", daemon_socket(board.root))
    third.expect("another process listens there")
    assert find_daemon(board) is not None


def test_what_is_in_the_sockets_place_is_not_removed(board, start):
    path = daemon_socket(board.root)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    start(COMMAND, "daemon", "--root", board.root).expect("no socket; remove it")
    assert path.read_text() == "mine"


def test_a_group_that_is_not_there_is_said(board, start):
    start(COMMAND, "daemon", "--root", board.root, "--group", "no-such-group").expect(
        "sudo groupadd --system no-such-group"
    )


def test_a_daemon_of_another_board_is_not_taken(board, serve, fake, monkeypatch):
    serve(board.root)
    other = fake("nano", "4")
    monkeypatch.setenv("POWERCTL_SOCKET", str(daemon_socket(board.root)))
    with pytest.raises(DeviceUnavailable, match="the daemon serves"):
        FakeJetson(other.root)
    monkeypatch.setenv("POWERCTL_SOCKET", str(daemon_socket(other.root)))
    with pytest.raises(DeviceUnavailable, match="no daemon listens at"):
        FakeJetson(other.root)


# Other users

OTHER = 54321  # no user's number
GROUP = next(entry for entry in grp.getgrall() if entry.gr_gid)


def apply_present_mode(root):
    daemon = Daemon(daemon_socket(root))
    daemon.ask(Request("apply", PowerMode(*daemon.ask(Request("read"))["mode"])))
    return "allowed"


def as_user(uid, gid, groups, act, root):
    """What an action gives or fails with where another user does it, in a child of this process."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            said = act(root)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sending, said.encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def in_reach(board, folder):
    """The board where every user can get at it."""
    folder.chmod(0o711)
    return board


@as_root
def test_another_user_cannot_open_the_socket(in_reach, serve):
    before = settings(in_reach)
    serve(in_reach.root)
    assert "PermissionError" in as_user(OTHER, OTHER, [], apply_present_mode, in_reach.root)
    assert is_as(in_reach, before)


@as_root
def test_another_user_that_can_open_it_is_refused_by_what_the_kernel_says_of_it(in_reach, serve):
    before = settings(in_reach)
    daemon = serve(in_reach.root)
    daemon_socket(in_reach.root).chmod(0o666)
    assert f"user {OTHER} may not set modes" in as_user(
        OTHER, OTHER, [], apply_present_mode, in_reach.root
    )
    daemon.expect(f"of user {OTHER}: ")
    assert is_as(in_reach, before)


@as_root
def test_members_of_the_group_are_served(in_reach, serve):
    before = settings(in_reach)
    daemon = serve(in_reach.root, "--group", GROUP.gr_name)
    for gid, groups in ((GROUP.gr_gid, []), (OTHER, [OTHER, GROUP.gr_gid])):
        assert as_user(OTHER, gid, groups, apply_present_mode, in_reach.root) == "allowed"
        daemon.expect("it has gone")
    refused = as_user(OTHER, OTHER, [OTHER], apply_present_mode, in_reach.root)
    assert "PermissionError" in refused
    assert is_as(in_reach, before)


def doctors_report(root):
    report = examine(open_sysfs(root))
    return json.dumps([report.ok, report.daemon, [item.remedy for item in report.missing]])


@as_root
def test_the_doctor_tells_a_user_what_it_may_do_through_the_daemon_or_why_not(in_reach, serve):
    """Plain files, and memory's that only root can see: as on a Jetson."""
    (in_reach.root / FAKE_MARKER).unlink()
    (in_reach.root / "sys/kernel/debug").chmod(0o700)

    def diagnosis(gid):
        return json.loads(as_user(OTHER, gid, [], doctors_report, in_reach.root))

    ok, says, remedies = diagnosis(OTHER)
    assert not ok and says == "not running"
    assert any("powerctl daemon" in remedy and "usermod" in remedy for remedy in remedies)
    serve(in_reach.root, "--group", GROUP.gr_name)
    ok, says, remedies = diagnosis(OTHER)
    assert not ok and says.startswith("serves others") and "usermod" in "".join(remedies)
    ok, says, remedies = diagnosis(GROUP.gr_gid)
    assert ok and says == "serves this user; nobody holds the board" and not remedies


def test_doctor_and_restore_know_the_daemon(board, serve, start):
    before = settings(board)
    daemon, holder = serve(board.root), start(HOLDER, board.root)
    holder.expect("holds")
    said = CliRunner().invoke(doctor, ["--root", str(board.root)]).stdout
    assert f"process {holder.process.pid} of user {os.geteuid()} holds the board in 6c/" in said
    assert f"process {daemon.process.pid} controls this board" in said
    assert "modes can be applied here" in said
    done = CliRunner().invoke(restore_command, ["--root", str(board.root)])
    assert "the daemon has restored" in done.stdout and is_as(board, before)


@as_root
def test_no_socket_is_put_where_others_could_put_theirs(in_reach, start):
    path = in_reach.root / "open" / "daemon.sock"
    path.parent.mkdir()
    path.parent.chmod(0o777)
    start(COMMAND, "daemon", "--root", in_reach.root, "--socket", path).expect("others than root")


def test_a_socket_whose_path_is_too_long_is_said(board):
    with pytest.raises(InvalidInput, match="longer than 107 bytes"):
        Listener(board.root, board.root / ("x" * 120), None)
