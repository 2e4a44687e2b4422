"""Devices of others: the least that one must have, and what it lacks."""

from __future__ import annotations

import re
from pathlib import Path

from powerctl.device import COOL
from powerctl.devices.opening import open_device

ROOT = Path(__file__).resolve().parents[3]
MINE = """
from powerctl.boards import load_board

class Plain:
    board = load_board("orin-nano")
    space = board.space
    power_period_s = 1.0

    def apply(self, mode): ...
    def mode(self): return self.space.maximum
    def execute(self, workload, step=None): return 1.0
    def idle(self, seconds): ...
    def now(self): return 0.0
    def energy_j(self): return 0.0
    def restore(self): ...

class Warm(Plain):
    def excess_c(self, limit_c=0.0): return 5.0
"""


def test_a_device_of_others_need_not_have_the_optional_traits(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    device = open_device(f"{tmp_path}/mine.py:Plain")
    assert device.module is device and device.excess_c() == COOL and not device.has_thermometer
    assert not (device.is_virtual or device.keeps_found or device.is_untouched or device.falling_j)
    assert device.energy_source and not device.bring_back()
    device.close()


def test_a_trait_that_a_device_of_others_has_is_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    device = open_device(f"{tmp_path}/mine.py:Warm")
    assert device.excess_c() == 5.0 and device.has_thermometer


def test_nothing_else_asks_what_a_device_has():
    """Its traits are members of `Device`; only where a stranger's is opened some are filled in."""
    asks = re.compile(r"\b(getattr|hasattr)\((self\.)?_?device\b")
    rooms = ("powerctl", "strategies", "client", "server")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 200
    assert [path for path in files if asks.search(path.read_text(encoding="utf-8"))] == []
