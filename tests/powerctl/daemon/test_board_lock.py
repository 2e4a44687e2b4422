"""Who holds the board, and that it is given back, whatever happens to its holder."""

from __future__ import annotations

import errno

import pytest

from benchmarks.kernel_faults import FAULTS, at_write
from powerctl.axes import PowerMode
from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.messages import HeldByAnother, NotHeld
from powerctl.daemon.peers import Peer
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.roots import open_sysfs
from powerctl.errors import DeviceUnavailable, ModeNotInForce, ModeNotInSpace
from powerctl.jetson.journal import Journal, holder
from tests.powerctl.jetson.conftest import as_if_killed, settings

ROOT, ANN, BOB = 0, 1001, 1002


def client(uid=ANN):
    return Client(Peer(pid=4242, uid=uid, gids=frozenset()))


class Office:
    """A board lock, its board, and a clock that stands still until it is moved."""

    def __init__(self, board):
        self.now_s = 0.0
        self.board = board
        self.sysfs = open_sysfs(board.root)
        self.before = settings(board)
        self.board_lock = BoardLock(self.sysfs, hold_s=15, clock=lambda: self.now_s)
        axes = self.board_lock._controller.axes
        self.high, self.low = axes.maximum, axes.minimum

    @property
    def is_as_found(self):
        return (
            settings(self.board) == self.before
            and not Journal(self.board).found
            and holder(self.board) is None
        )


@pytest.fixture
def office(fake):
    opened = Office(fake("orin-nano", "5.1"))
    yield opened
    opened.board_lock.close()


def test_the_holder_changes_modes_and_nobody_else_does(office):
    board_lock, ann, bob = office.board_lock, client(ANN), client(BOB)
    for mode in (office.high, office.low):
        board_lock.apply(ann, mode)
        assert office.board.mode() == mode
    for other in (bob, client(ANN), client(ROOT)):
        with pytest.raises(HeldByAnother, match="process 4242 of user 1001, with 1c/"):
            board_lock.apply(other, office.high)
    assert office.board.mode() == office.low
    board_lock.restore(ann)
    assert office.is_as_found
    found = PowerMode(*board_lock.read(ann)["mode"])
    assert found == office.board.mode(), "not what was seen before"
    board_lock.apply(bob, office.high)
    assert board_lock.read(ann)["holder"]["uid"] == BOB
    board_lock.restore(bob)


def test_restoring_is_for_the_holders_user_and_root(office):
    board_lock, ann = office.board_lock, client(ANN)
    for other in (client(ANN), client(ROOT)):
        board_lock.apply(ann, office.high)
        with pytest.raises(HeldByAnother, match="that user or root"):
            board_lock.restore(client(BOB))
        assert office.board.mode() == office.high
        board_lock.restore(other)
        assert office.is_as_found
        with pytest.raises(NotHeld, match="restored the board"):
            board_lock.hold(ann)


def test_a_holder_that_goes_is_followed_by_a_restore_and_others_are_not(office):
    board_lock, ann = office.board_lock, client()
    board_lock.apply(ann, office.high)
    board_lock.leave(client())
    assert office.board.mode() == office.high
    board_lock.leave(ann)
    assert office.is_as_found


def test_a_holder_that_is_silent_for_too_long_is_taken_for_dead(office):
    board_lock, ann = office.board_lock, client()
    board_lock.apply(ann, office.high)
    for office.now_s in (14, 28, 42):
        board_lock.hear(ann)
        board_lock.hold(ann)
        board_lock.tend()
        assert office.board.mode() == office.high
    office.now_s = 57.1
    board_lock.tend()
    assert office.is_as_found
    assert "15.1 s" in board_lock.read(ann)["amiss"]
    with pytest.raises(NotHeld, match=r"nothing was heard of it for 15.1 s"):
        board_lock.hold(ann)
    board_lock.apply(ann, office.low)
    assert board_lock.read(ann)["mine"] and board_lock.read(ann)["amiss"] is None


def test_a_mode_that_the_board_has_not_changes_nothing(office):
    board_lock, ann = office.board_lock, client()
    board_lock.apply(ann, office.high)
    writes = office.sysfs.writes
    with pytest.raises(ModeNotInSpace):
        board_lock.apply(ann, PowerMode(1, 2, 3, 4))
    assert office.sysfs.writes == writes and board_lock.hold(ann) == {}


def test_the_holder_is_told_what_moved_its_mode(office):
    board_lock, ann = office.board_lock, client()
    board_lock.apply(ann, office.high)
    office.board.nvpmodel(0)
    assert "cpu of mode" in board_lock.read(ann)["amiss"]
    assert board_lock.read(client())["amiss"] is None, "nobody else's business"


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_any_write_leaves_the_board_as_it_was_and_the_desk_at_work(office, kind):
    board_lock, ann = office.board_lock, client()

    def there_and_back():
        board_lock.apply(ann, office.high)
        board_lock.apply(ann, office.low)
        board_lock.restore(ann)

    there_and_back()
    writes, reported = office.sysfs.writes, 0
    assert writes > 20
    for number in range(1, writes + 1):
        office.sysfs.fault = at_write(office.sysfs.writes + number, FAULTS[kind])
        try:
            there_and_back()
        except ModeNotInForce:
            reported += 1
            with pytest.raises(NotHeld):
                board_lock.hold(ann)
        assert office.is_as_found, number
    assert reported > 4


def test_what_cannot_be_restored_is_tried_again_until_it_can(office):
    board_lock, ann = office.board_lock, client()
    board_lock.apply(ann, office.high)

    def broken(write, path, text):
        if path.endswith("_freq"):
            raise OSError(errno.EIO, "Input/output error", f"/{path}")
        return text

    office.sysfs.fault = broken
    board_lock.leave(ann)
    with pytest.raises(ModeNotInForce, match="_freq"):
        board_lock.restore(client(ROOT))
    office.sysfs.fault = lambda write, path, text: text
    office.now_s += 1
    board_lock.tend()
    assert not office.is_as_found, "every two seconds"
    office.now_s += 1
    board_lock.tend()
    assert office.is_as_found
    board_lock.restore(client(ROOT))


def test_what_a_killed_controller_left_is_restored_at_the_start_and_later(fake):
    board = fake("orin-nano", "5.1")
    before = settings(board)

    def leave_changed():
        device = FakeJetson(board.root)
        device.apply(device.space.maximum)
        return device

    as_if_killed(leave_changed())
    assert settings(board) != before
    now = [0.0]
    board_lock = BoardLock(open_sysfs(board.root), clock=lambda: now[0])
    assert settings(board) == before
    other = leave_changed()
    with pytest.raises(DeviceUnavailable, match="another powerctl"):
        board_lock.apply(client(), board.mode())
    now[0] = 3
    board_lock.tend()
    assert settings(board) != before, "as long as it lives it may"
    as_if_killed(other)
    now[0] = 6
    board_lock.tend()
    assert settings(board) == before


def test_a_board_whose_power_cannot_be_read_is_served(fake):
    board = fake("nano", "4")
    with board._changing() as kernel:
        kernel.state.rails[0][0] = "STRANGE"
    board_lock = BoardLock(open_sysfs(board.root))
    assert board_lock.read(client())["power_w"] is None
    board_lock.apply(client(), board.mode())
    board_lock.close()
