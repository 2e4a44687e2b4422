"""A fault at every write, of applying and of restoring: the board is as it was, each time."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys

import pytest

from benchmarks.kernel_faults import FAULTS, at_write
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.roots import open_sysfs
from powerctl.errors import ModeNotInForce
from powerctl.jetson.controller import Control
from powerctl.jetson.journal import Journal
from tests.powerctl.jetson.conftest import as_if_killed, settings
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.processes

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from powerctl.devices.fake_jetson import FakeJetson

number, before = int(sys.argv[2]), sys.argv[3] == "before"
device = FakeJetson(Path(sys.argv[1]))

def kill(write, path, text):
    if write == number + (not before):
        os.kill(os.getpid(), signal.SIGKILL)
    return text

device.sysfs.fault = kill
for mode in (device.space.maximum, device.space.minimum):
    device.apply(mode)
device.restore()
"""


def there_and_back(device):
    """Every file is written: from the state of a boot up to the maximum, down, and back."""
    device.apply(device.space.maximum)
    device.apply(device.space.minimum)
    device.restore()


def try_every_write(board, fault_of):
    """Run there and back once for each write, with a fault at it; gives writes and reports."""
    before = settings(board)
    with FakeJetson(board.root) as device:
        there_and_back(device)
        writes = device.sysfs.writes
        assert settings(board) == before
        reported = 0
        for number in range(1, writes + 1):
            at = device.sysfs.writes + number
            device.sysfs.fault = at_write(at, FAULTS[fault_of(number)])
            try:
                there_and_back(device)
            except ModeNotInForce as error:
                reported += 1
                assert str(error).split()[0] in ("cores", "cpu", "gpu", "memory")
            assert settings(board) == before, number
            assert not Journal(board).found
    return writes, reported


def test_a_fault_at_any_write_leaves_the_board_as_it_was(board):
    kinds, offset = list(FAULTS), len(board.kernel.state.board)
    writes, reported = try_every_write(board, lambda number: kinds[(number + offset) % len(kinds)])
    assert writes > 20 and reported > 4


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_at_every_write(fake, kind):
    writes, reported = try_every_write(fake("orin-nano", "5.1"), lambda number: kind)
    assert writes > 20 and reported > 4


def test_a_file_that_is_busy_twice_is_restored_at_the_third_attempt(fake):
    board = fake()
    before = settings(board)
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        refused = []

        def busy_twice(write, path, text):
            if path.endswith("/max_freq") and len(refused) < 2:
                refused.append(path)
                raise OSError(errno.EBUSY, "Device or resource busy", f"/{path}")
            return text

        device.sysfs.fault = busy_twice
        device.restore()
        assert len(refused) == 2 and settings(board) == before


def test_a_fault_that_stays_is_reported_and_the_journal_kept(fake):
    board = fake()
    before = settings(board)
    device = FakeJetson(board.root)
    device.apply(device.space.maximum)

    def broken(write, path, text):
        if path.endswith("/max_freq"):
            raise OSError(errno.EIO, "Input/output error", f"/{path}")
        return text

    device.sysfs.fault = broken
    with pytest.raises(ModeNotInForce, match=r"max_freq.*powerctl restore"):
        device.restore()
    changed = {name for name, value in settings(board).items() if value != before[name]}
    assert changed == {"gpu_limits"}, "all others are back"
    assert Journal(board).found
    device.sysfs.fault = lambda write, path, text: text
    device.close()
    assert settings(board) == before


class Killed(BaseException):
    """In place of SIGKILL: nothing catches it, and from there on nothing more is written."""


def test_a_kill_at_every_fifth_write_is_undone_by_the_next_controller(board):
    before = settings(board)
    with FakeJetson(board.root) as device:
        there_and_back(device)
        writes = device.sysfs.writes
    for number in range(1 + len(board.kernel.state.board) % 5, writes + 1, 5):
        device = FakeJetson(board.root)

        def dead(write, path, text, number=number):
            if write >= number:
                raise Killed
            return text

        device.sysfs.fault = dead
        with pytest.raises(Killed):
            there_and_back(device)
        as_if_killed(device)
        control = Control(open_sysfs(board.root))
        control.take()
        assert settings(board) == before, number
        control.give_back()


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("number", [1, 17, 41])
def test_a_killed_process_is_undone_by_restore(fake, number, kind):
    board = fake("orin-agx", "5.1")
    before = settings(board)
    script = [sys.executable, "-c", KILLED_AT, str(board.root), str(number), kind]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert settings(board) != before or number == 1
    sysfs = open_sysfs(board.root)
    Control(sysfs).take()
    assert settings(board) == before
    assert not Journal(sysfs).found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_process_restores_before_it_ends(fake, number):
    board = fake()
    before = settings(board)
    script = (
        "import os, sys; from pathlib import Path\n"
        "from powerctl.devices.fake_jetson import FakeJetson\n"
        "device = FakeJetson(Path(sys.argv[1])); device.apply(device.space.maximum)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", script, str(board.root)], timeout=TIMEOUT_S)
    assert done.returncode == 128 + number
    assert settings(board) == before


def test_an_exception_and_a_forgotten_device_restore(fake):
    board = fake()
    before = settings(board)
    with pytest.raises(RuntimeError), FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        raise RuntimeError
    assert settings(board) == before
    device = FakeJetson(board.root)
    device.apply(device.space.maximum)
    del device
    assert settings(board) == before
