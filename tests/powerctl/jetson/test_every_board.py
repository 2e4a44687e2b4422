"""On every board: what there is, 200 modes applied and in force, and all as it was after."""

from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.fakes.making import JETPACKS
from tests.powerctl.jetson.conftest import settings

pytestmark = pytest.mark.processes


def test_the_axes_are_those_of_the_kernel(board):
    state = board.kernel.state
    with FakeJetson(board.root) as device:
        known = load_board(state.board, state.l4t)
        assert device.board.name == state.board
        assert device.board.l4t in JETPACKS.values()
        assert device.space.axes == known.space.axes


def test_200_random_modes_are_in_force_and_all_is_restored(board):
    before, masks = settings(board), dict(board.kernel.state.masks)
    rng = np.random.default_rng(0)
    with FakeJetson(board.root) as device:
        for number in rng.integers(len(device.space), size=200).tolist():
            mode = device.space.mode(number)
            device.apply(mode)
            assert board.mode() == device.mode() == mode
        device.verify()
        assert settings(board) != before
        device.restore()
        assert settings(board) == before
    assert board.kernel.state.masks == masks


def test_axes_that_the_kernel_lists_and_the_catalogue_does_not_are_taken(fake):
    board = fake("orin-agx", "5.1")
    marker = board.root / FAKE_MARKER
    marker.write_text(marker.read_text().replace("1300500000]", "1300500000, 1400000000]"))
    with FakeJetson(board.root) as device:
        assert device.space.gpu_hz[-1] == 1_400_000_000
        device.apply(device.space.maximum)
        assert board.mode().gpu_hz == 1_400_000_000


def test_a_gpu_whose_power_is_off_is_found_woken_and_left_asleep(board):
    board.leave_gpu()
    before = settings(board)
    assert board.find("sys/class/devfreq/*") == []
    with FakeJetson(board.root) as device:
        assert board.kernel.is_gated
        assert len(device.space.gpu_hz) > 4
        device.apply(device.space.minimum)
        assert board.mode() == device.space.minimum
        device.restore()
        assert board.kernel.is_gated and settings(board) == before
        device.apply(device.space.maximum)
    assert board.kernel.is_gated and settings(board) == before


def test_limits_that_sleep_with_their_cores_are_kept_too(fake):
    """Of a kernel that remembers them: they cannot be read before the cores are on."""
    board = fake("orin-agx", "5.1")
    with board._changing() as kernel:
        kernel.state.forgets = False
        kernel.state.cpu_limits["8"] = [345_600, 1_113_600]
    before = settings(board)
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        device.apply(device.space.minimum)
    assert settings(board) == before


@pytest.mark.parametrize("jetpack", ["5.1", "6"])
@pytest.mark.parametrize("name", ["orin-agx-32gb", "orin-nx-8gb", "orin-nano-4gb"])
def test_the_smaller_modules_too(fake, name, jetpack):
    board = fake(name, jetpack)
    before = settings(board)
    with FakeJetson(board.root) as device:
        assert device.board.name == name
        for mode in (device.space.maximum, device.space.minimum):
            device.apply(mode)
            assert board.mode() == mode
    assert settings(board) == before


def test_opening_writes_nothing(board):
    with FakeJetson(board.root) as device:
        device.mode()
        assert device.sysfs.writes == 0
    assert not list(board.root.glob("run/*")) and not list(board.root.glob("var/lib/powerctl/*"))


def test_masks_are_never_written(board):
    from powerctl.errors import InvalidInput

    for mask in ("tpc_pg_mask", "fbp_pg_mask"):
        with pytest.raises(InvalidInput, match="reboot"):
            board.write(f"{board.kernel.layout.gpu}/{mask}", 0)
