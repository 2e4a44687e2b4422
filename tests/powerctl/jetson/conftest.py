"""Fake boards: one of each kind, in memory where the machine has room for files there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from powerctl.fakes.making import make_fake_board
from powerctl.jetson.rails import find_rails

BOARDS = [
    ("orin-agx", "5.0"),
    ("orin-agx", "5.1"),
    ("orin-agx", "6"),
    ("orin-nx", "5.1"),
    ("orin-nx", "6"),
    ("orin-nano", "5.1"),
    ("orin-nano", "6"),
    ("orin-nano", "7"),
    ("xavier-agx", "4"),
    ("xavier-agx", "5.1"),
    ("xavier-nx", "4"),
    ("xavier-nx", "5.1"),
    ("nano", "4"),
]
_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder():
    """An empty folder."""
    made = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def fake(folder):
    """Make a fake board by name and JetPack."""
    return lambda name="orin-agx", jetpack="5.1": make_fake_board(name, jetpack, folder / name)


@pytest.fixture(params=BOARDS, ids=lambda board: f"{board[0]}-jp{board[1]}")
def board(request, fake):
    """Each fake board in turn."""
    return fake(*request.param)


def settings(sysfs):
    """All that a controller may change."""
    return sysfs.settings()


def watts(sysfs):
    """Power of every rail that is found, by its label."""
    return {rail.label: rail.power_w(sysfs) for rail in find_rails(sysfs)}


def as_if_killed(device):
    """Leave a device as a kill leaves it: nothing restored, and the lock gone with the process."""
    _, _, (_, stop_metering), _ = device._closing.detach()
    stop_metering()
    control = device._controller._control
    if control._lock is not None:
        control._lock.release()
