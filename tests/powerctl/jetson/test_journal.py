from __future__ import annotations

import os

import pytest

from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import DeviceUnavailable
from powerctl.jetson.controller import Control
from powerctl.jetson.journal import Journal, holder
from powerctl.jetson.restoring import restore_left
from tests.full_disc import largest_file
from tests.powerctl.jetson.conftest import as_if_killed, settings


def test_what_is_noted_is_on_disc_and_the_first_value_stays(fake):
    board = fake()
    Journal(board).note({"a": "1", "b": "2"})
    Journal(board).note({"a": "3", "c": "4"})
    assert Journal(board).found == {"a": "1", "b": "2", "c": "4"}


def test_every_file_is_noted_before_it_is_written(board):
    with FakeJetson(board.root) as device:

        def check(number, path, text):
            assert path in Journal(board).found, path
            return text

        device.sysfs.fault = check
        device.apply(device.space.maximum)
        device.apply(device.space.minimum)


def test_a_line_that_was_cut_off_is_left_out(fake):
    board = fake()
    journal = Journal(board)
    journal.note({"a": "1"})
    with open(journal.path, "a") as file:
        file.write('{"path": "b", "va')
    assert Journal(board).found == {"a": "1"}


def test_a_journal_from_before_a_restart_is_dropped(fake):
    board = fake()
    Journal(board).note({"a": "1"})
    (board.root / "proc/sys/kernel/random/boot_id").write_text(
        "00000000-0000-4000-8000-000000000002\n"
    )
    assert not Journal(board).found
    Journal(board).note({"b": "2"})
    assert Journal(board).found == {"b": "2"}


def test_without_room_for_the_journal_nothing_is_written(fake):
    board = fake()
    before = settings(board)
    device = FakeJetson(board.root)
    with largest_file(0), pytest.raises(DeviceUnavailable, match="nothing is changed"):
        device.apply(device.space.maximum)
    assert device.sysfs.writes == 0 and settings(board) == before


def test_a_second_controller_is_refused_until_the_first_is_done(fake):
    board = fake()
    first, second = FakeJetson(board.root), FakeJetson(board.root)
    first.apply(first.space.maximum)
    assert holder(board) == str(os.getpid())
    with pytest.raises(DeviceUnavailable, match=rf"another powerctl \(process {os.getpid()}\)"):
        second.apply(second.space.minimum)
    assert board.mode() == first.space.maximum
    second.restore()
    assert board.mode() == first.space.maximum, "who does not control does not restore"
    first.restore()
    assert holder(board) is None
    second.apply(second.space.minimum)
    assert board.mode() == second.space.minimum
    second.close()


def test_the_next_controller_restores_what_a_killed_one_left(fake):
    board = fake()
    before = settings(board)
    killed = FakeJetson(board.root)
    killed.apply(killed.space.minimum)
    as_if_killed(killed)
    control = Control(board)
    control.take()
    assert settings(board) == before
    control.give_back()


def test_the_memorys_cap_comes_back_though_the_note_of_its_hold_is_lost(fake):
    board = fake("orin-nano", "6")
    before, cap = settings(board), board.kernel.layout.emc_cap
    Journal(board).note({cap: board.read(cap)})
    board.write(cap, board.kernel.state.mem_hz[0])
    restore_left(board)
    assert settings(board) == before and not Journal(board).found
