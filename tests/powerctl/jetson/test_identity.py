from __future__ import annotations

import pytest

from powerctl.devices.jetson import board_found
from powerctl.errors import DeviceUnavailable
from powerctl.jetson.discovery import discover
from powerctl.jetson.identity import identify


def board_of(sysfs):
    """The board of the catalogue, with the axes that are found."""
    found = discover(sysfs)
    return board_found(found.identity, found.axes())


def test_every_board_is_known_by_its_device_tree(board):
    state = board.kernel.state
    found = identify(board)
    assert (found.name, found.l4t, found.jetpack) == (state.board, state.l4t, state.jetpack)


def test_a_board_that_the_catalogue_lacks_is_named(fake):
    board = fake()
    (board.root / "proc/device-tree/compatible").write_text("nvidia,p9999-0000\0nvidia,tegra999\0")
    with pytest.raises(DeviceUnavailable, match=r"p9999-0000.*catalogue.*toml"):
        board_of(board)


def test_a_release_that_is_not_known_yet_takes_the_kernels_axes(fake):
    board = fake("orin-agx", "6")
    (board.root / "etc/nv_tegra_release").write_text("# R39 (release), REVISION: 0.1, GCID: 1\n")
    assert board_of(board).l4t == "39.0.1"
    (board.root / "etc/nv_tegra_release").unlink()
    assert board_of(board).space.gpu_hz[-1] == 1_300_500_000


def test_without_debugfs_the_remedy_is_said(fake):
    board = fake()
    emc = board.root / "sys/kernel/debug/bpmp/debug/clk/emc"
    (emc / "rate").unlink()
    with pytest.raises(DeviceUnavailable, match=r"memory clock.*mount -t debugfs"):
        board_of(board)


def test_an_empty_machine_is_no_jetson(folder):
    from powerctl.jetson.sysfs import Sysfs

    with pytest.raises(DeviceUnavailable, match="not in the board catalogue"):
        board_of(Sysfs(folder))
