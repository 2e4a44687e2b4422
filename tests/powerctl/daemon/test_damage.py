"""A journal that is damaged or gone, locks and links of others: the daemon starts, and says so."""

from __future__ import annotations

import fcntl
import io
import json
import os
import stat
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.axes import PowerMode
from powerctl.cli import main
from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.messages import HeldByAnother, Request
from powerctl.daemon.peers import Peer
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.roots import open_sysfs
from powerctl.doctor.report import examine
from powerctl.errors import InvalidInput, ModeNotInForce
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.jetson.journal import Journal, Lock, holder
from powerctl.jetson.sysfs import Sysfs
from tests.powerctl.daemon.conftest import COMMAND
from tests.powerctl.jetson.conftest import as_if_killed, settings
from tests.powerctl.others import OTHER, as_another, as_root

pytestmark = pytest.mark.processes

ROOT = Client(Peer(os.getpid(), 0, frozenset()))


def as_folder(path, content):
    path.unlink()
    path.mkdir()


def as_link(path, content):
    path.unlink()
    path.symlink_to("/etc/hostname")


def as_pipe(path, content):
    path.unlink()
    os.mkfifo(path)


def _with(change):
    return lambda path, content: path.write_bytes(change(content))


DAMAGES = {
    "not UTF-8": _with(lambda content: b"\xff\xfe" + content),
    "list": _with(lambda content: b"[]"),
    "null": _with(lambda content: b"null"),
    "object": _with(lambda content: b"{}"),
    "lists": _with(lambda content: b"[]\n[]\n"),
    "missing keys": _with(lambda content: content.replace(b'"value"', b'"valu"')),
    "no boot": _with(lambda content: content.replace(b'"boot"', b'"boo"')),
    "number for a text": _with(lambda content: content.replace(b'"value": "1"', b'"value": 1')),
    "nested": _with(lambda content: b"[" * 100_000 + b"\n"),
    "zeros": _with(lambda content: bytes(len(content))),
    "huge": _with(lambda content: content + b" " * (1 << 20)),
    "lines lost": _with(lambda content: b"".join(content.splitlines(keepends=True)[:9])),
    "digit flipped": _with(lambda content: content.replace(b"729600", b"729601")),
    "folder": as_folder,
    "link": as_link,
    "pipe": as_pipe,
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def board(fake):
    return fake("orin-nano", "5.1")


@pytest.fixture
def left_changed(board):
    """The board as a controller left it that was killed, and its state before."""
    before = settings(board)
    device = FakeJetson(board.root)
    device.apply(device.space.minimum)
    as_if_killed(device)
    assert settings(board) != before
    return before


@dataclass
class Done:
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def powerctl(monkeypatch):
    """Run the command as a shell does."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["powerctl", *map(str, words)])
        stdout, stderr = io.StringIO(), io.StringIO()
        with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, stdout.getvalue(), stderr.getvalue())

    return run


@damaged
def test_the_daemon_starts_on_a_damaged_journal_and_says_so_until_all_is_as_booted(
    board, left_changed, start, connect, damage, powerctl
):
    path = Journal(board).path
    damage(path, path.read_bytes())
    daemon = start(COMMAND, "daemon", "--root", board.root)
    assert "sudo powerctl restore --as-booted" in daemon.expect("serves at")
    aside = [other for other in path.parent.iterdir() if other.name.startswith("found.damaged-")]
    assert len(aside) == 1
    failed = powerctl("restore", "--root", board.root, "--json")
    assert failed.exit_code == 2
    answer = json.loads(failed.stdout)
    assert str(aside[0]) in answer["error"] and "--as-booted" in answer["error"]
    assert not examine(board).ok

    client = connect(board.root)
    mode = client.ask(Request("read"))["mode"]
    client.ask(Request("apply", PowerMode(*mode)))
    client.ask(Request("restore"))  # its own hold is undone, whatever was before

    done = powerctl("restore", "--root", board.root, "--as-booted")
    assert done.exit_code == 0 and "set as booted: preset" in done.stdout
    assert settings(board) == left_changed
    done = powerctl("restore", "--root", board.root, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"restored": {}, "still_changed": {}, "error": None}
    assert daemon.kill(15) == 0


@damaged
def test_without_a_daemon_restore_fails_likewise_and_the_device_works(
    board, left_changed, damage, powerctl
):
    path = Journal(board).path
    damage(path, path.read_bytes())
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
    for _ in range(2):
        failed = powerctl("restore", "--root", board.root)
        assert failed.exit_code == 2 and "kept as" in failed.stderr
    assert powerctl("restore", "--root", board.root, "--as-booted").exit_code == 0
    assert settings(board) == left_changed
    assert powerctl("restore", "--root", board.root).exit_code == 0


@pytest.mark.parametrize("damage", ["missing keys", "lines lost", "digit flipped"])
def test_a_damaged_journal_of_an_earlier_boot_says_nothing(
    board, left_changed, serve, damage, powerctl
):
    path = Journal(board).path
    DAMAGES[damage](path, path.read_bytes())
    (board.root / "proc/sys/kernel/random/boot_id").write_text(
        "00000000-0000-4000-8000-000000000002\n"
    )
    serve(board.root)
    assert powerctl("restore", "--root", board.root).exit_code == 0


def test_of_a_damaged_journal_the_whole_lines_are_restored(board, left_changed, powerctl):
    path = Journal(board).path
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\xff" + lines[3]
    path.write_bytes(b"".join(lines))
    failed = powerctl("restore", "--root", board.root)
    assert failed.exit_code == 2 and "restored: " in failed.stdout
    amiss = [name for name in left_changed if settings(board)[name] != left_changed[name]]
    assert len(amiss) <= 1


@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=40), cut=st.integers(0, 200))
def test_whatever_befalls_the_journal_all_is_restored_or_it_is_said(board, at, junk, cut, powerctl):
    before = settings(board)
    device = FakeJetson(board.root)
    device.apply(device.space.minimum)
    as_if_killed(device)
    path = Journal(board).path
    head, _, content = path.read_bytes().partition(b"\n")
    start = int(at * len(content))
    path.write_bytes(head + b"\n" + content[:start] + junk + content[start + cut :])
    board_lock = BoardLock(open_sysfs(board.root))
    try:
        board_lock.restore(ROOT)
        assert settings(board) == before
    except ModeNotInForce:
        assert powerctl("restore", "--root", board.root, "--as-booted").exit_code == 0
    assert settings(board) == before


def test_a_journal_of_an_older_version_is_read(board, left_changed, powerctl):
    path = Journal(board).path
    head, *entries = path.read_bytes().splitlines(keepends=True)
    old = {"boot": json.loads(head)["boot"], "pid": 1}
    path.write_bytes(json.dumps(old).encode() + b"\n" + b"".join(entries) + b'{"path": "sys/x", "v')
    assert powerctl("restore", "--root", board.root).exit_code == 0
    assert settings(board) == left_changed


# A journal that goes while its holder lives


def test_a_journal_deleted_under_a_holder_is_written_again(board, serve, connect):
    before = settings(board)
    daemon, client = serve(board.root), connect(board.root)
    axes = client.ask(Request("read"))["axes"]
    client.ask(Request("apply", PowerMode(*(axis[-1] for axis in axes))))
    noted = dict(Journal(board).found)
    Journal(board).path.unlink()
    daemon.expect("is written again from memory")
    assert Journal(board).found == noted
    daemon.kill()
    assert settings(board) != before
    serve(board.root)
    assert settings(board) == before


@pytest.mark.parametrize("damage", [*DAMAGES.values(), lambda path, content: path.unlink()])
def test_what_becomes_of_it_meanwhile_keeps_nothing_from_being_restored(board, damage, caplog):
    before = settings(board)
    board_lock = BoardLock(open_sysfs(board.root))
    board_lock.apply(ROOT, board_lock._controller.axes.minimum)
    path = Journal(board).path
    damage(path, path.read_bytes())
    assert board_lock.restore(ROOT) == {}
    assert settings(board) == before and "what was found is taken from memory" in caplog.text
    assert not Journal(board).found and not Journal(board).damage
    board_lock.close()


# Restoring that does not succeed


def test_restore_lists_what_it_restored_and_what_not(board, left_changed, monkeypatch, powerctl):
    write = FakeSysfs._write

    def refuse(sysfs, path, text):
        if "devfreq" in path:
            raise OSError(5, "Input/output error")
        write(sysfs, path, text)

    monkeypatch.setattr(FakeSysfs, "_write", refuse)
    failed = powerctl("restore", "--root", board.root, "--json")
    answer = json.loads(failed.stdout)
    assert failed.exit_code == 2 and "Input/output error" in answer["error"]
    assert answer["restored"] and all("devfreq" in path for path in answer["still_changed"])
    assert not set(answer["restored"]) & set(answer["still_changed"])
    shown = powerctl("restore", "--root", board.root)
    assert shown.exit_code == 2 and "still changed: " in shown.stdout
    monkeypatch.undo()
    assert powerctl("restore", "--root", board.root).exit_code == 0
    assert settings(board) == left_changed


def test_a_board_lock_is_there_though_nothing_can_be_restored_and_the_gpu_sleeps(
    board, left_changed, monkeypatch
):
    """It must look at the GPU to know its clocks, for which it has to be woken and put to sleep."""
    write = FakeSysfs._write

    def refuse(sysfs, path, text):
        if "cpufreq" in path:
            raise OSError(5, "Input/output error")
        write(sysfs, path, text)

    board.leave_gpu()
    monkeypatch.setattr(FakeSysfs, "_write", refuse)
    lock = BoardLock(open_sysfs(board.root))
    with pytest.raises(ModeNotInForce, match="Input/output error"):
        lock.restore(ROOT)
    monkeypatch.undo()
    lock.restore(ROOT)
    assert board.kernel.is_gated


def test_the_daemon_does_not_say_that_it_restored_what_another_process_controls(
    board, left_changed
):
    lock = Lock(board)
    board_lock = BoardLock(open_sysfs(board.root))
    with pytest.raises(HeldByAnother, match=f"another powerctl .process {os.getpid()}."):
        board_lock.restore(ROOT)
    board_lock.close()  # that process restores it
    lock.release()
    assert board_lock.restore(ROOT) == {} and settings(board) == left_changed


# Other users, and links


@as_root
def test_no_other_user_keeps_the_daemon_from_restoring_by_a_lock(
    board, folder, left_changed, serve
):
    """A file of the lock as older versions made it: open to all."""
    folder.chmod(0o711)
    path = board.root / "var/lib/powerctl/lock"
    path.write_text("999999999\n")
    path.chmod(0o644)
    with as_another(lambda: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)) as said:
        assert said == "done" and holder(board) is None
        serve(board.root)
        assert settings(board) == left_changed
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with as_another(lambda: os.open(path, os.O_RDONLY)) as said:
            assert "PermissionError" in said


@as_root
def test_the_doctor_tells_another_user_who_holds_though_it_cannot_see_the_lock(board, folder):
    folder.chmod(0o711)
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        plain = Sysfs(board.root)

        def look():
            assert holder(plain) == str(os.getppid())
            assert Journal(plain).found

        with as_another(look) as said:
            assert said == "done"


@as_root
def test_no_socket_is_put_below_a_folder_of_another_users(board, start):
    path = board.root / "theirs" / "mine" / "daemon.sock"
    path.parent.mkdir(parents=True)
    os.chown(path.parent.parent, OTHER, OTHER)
    start(COMMAND, "daemon", "--root", board.root, "--socket", path).expect("others than root")
    assert not path.exists()


@pytest.mark.parametrize("name", ["var/lib/powerctl/lock", "var/lib/powerctl/found.jsonl"])
def test_links_planted_for_root_are_not_followed(board, folder, name):
    target = folder / "precious"
    target.write_text("precious")
    before = settings(board)
    (board.root / name).parent.mkdir(parents=True, exist_ok=True)
    (board.root / name).symlink_to(target)
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
    assert target.read_text() == "precious" and settings(board) == before
    assert not (board.root / name).is_symlink()


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_fake_boards_files_are_not_written_through_links(board, folder, of):
    target = folder / "precious"
    shown = board.root / next(path for path in board._shown if path.endswith("scaling_max_freq"))
    if of == "file":
        target.write_text("precious")
        shown.unlink()
        shown.symlink_to(target)
    else:
        shown.parent.rename(target)
        shown.parent.symlink_to(target)
        (target / shown.name).write_text("precious")
    with pytest.raises(InvalidInput, match="symbolic link"):
        open_sysfs(board.root)
    assert (target if of == "file" else target / shown.name).read_text() == "precious"


@as_root
def test_a_fake_board_in_a_folder_of_another_users_is_not_roots_to_write(board):
    os.chown(board.root, OTHER, OTHER)
    with pytest.raises(InvalidInput, match="others than root may change it"):
        open_sysfs(board.root)
