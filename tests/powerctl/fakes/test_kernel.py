"""The fake kernel takes, clamps, rounds and refuses as a kernel does."""

from __future__ import annotations

import errno
import json

import pytest

from powerctl.devices.roots import open_sysfs
from powerctl.errors import InvalidInput
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.fakes.making import make_fake_board

POLICY = "sys/devices/system/cpu/cpufreq/policy0"
CORE = "sys/devices/system/cpu/cpu{}/online"


def refused(board, path, value):
    with pytest.raises(OSError) as caught:
        board.write(path, value)
    return caught.value.errno


def test_kernel_4_refuses_crossed_limits(fake):
    board = fake("xavier-agx", "4")
    low = board.read_int(f"{POLICY}/scaling_min_freq")
    assert refused(board, f"{POLICY}/scaling_max_freq", low - 100) == errno.EINVAL
    high = board.read_int(f"{board.kernel.layout.devfreq}/max_freq")
    assert refused(board, f"{board.kernel.layout.devfreq}/min_freq", high + 10) == errno.EINVAL


def test_later_kernels_accept_crossed_limits_and_clamp_them(fake):
    board = fake("orin-agx", "5.1")
    board.write(f"{POLICY}/scaling_max_freq", 115_200)
    assert board.read_int(f"{POLICY}/scaling_min_freq") == 115_200, "of 729600 asked for"
    board.write(f"{POLICY}/scaling_max_freq", 1_190_400)
    assert board.read_int(f"{POLICY}/scaling_min_freq") == 729_600


def test_limits_are_clamped_to_the_hardware(fake):
    board = fake("orin-agx", "5.1")
    board.write(f"{POLICY}/scaling_max_freq", 9_999_999)
    assert board.read_int(f"{POLICY}/scaling_max_freq") == 2_201_600


def test_a_clock_off_the_table_is_rounded_in_silence(fake):
    board = fake("xavier-agx", "5.1")
    board.write(f"{board.kernel.layout.devfreq}/max_freq", 520_000_000)
    assert board.read_int(f"{board.kernel.layout.devfreq}/max_freq") == 520_000_000
    assert board.read_int(f"{board.kernel.layout.devfreq}/cur_freq") == 522_750_000


def test_an_offline_cluster_has_no_clock(fake):
    board = fake("orin-agx", "5.1")
    assert not board.exists("sys/devices/system/cpu/cpufreq/policy8/scaling_max_freq")
    assert not board.exists("sys/devices/system/cpu/cpu8/cpufreq")
    board.write(CORE.format(8), 1)
    assert board.read("sys/devices/system/cpu/cpufreq/policy8/affected_cpus") == "8"
    assert board.exists("sys/devices/system/cpu/cpu8/cpufreq/scaling_max_freq")


def test_what_cannot_be_written_is_refused(board):
    layout = board.kernel.layout
    assert refused(board, CORE.format(0), 0) == errno.EPERM
    assert refused(board, CORE.format(1), 7) == errno.EINVAL
    assert refused(board, f"{layout.devfreq}/cur_freq", 1) == errno.EACCES
    assert refused(board, f"{layout.devfreq}/nothing", 1) == errno.ENOENT
    assert refused(board, f"{layout.gpu}/power/control", "off") == errno.EINVAL


def test_the_cap_of_the_memory_shows_what_was_written_and_not_the_rate(fake):
    board = fake("orin-agx", "5.1")
    layout = board.kernel.layout
    board.write(layout.emc_hold, 1)
    board.write(layout.emc_request, 2_133_000_000)
    board.write(layout.emc_cap, 3_000_000_000)
    assert board.read_int(layout.emc_cap) == 3_000_000_000
    assert board.read_int(layout.emc_rate) == 2_133_000_000


def test_links_lead_where_they_do_on_a_board(fake):
    board = fake("orin-agx", "6")
    assert board.exists("sys/devices/platform/17000000.gpu/devfreq_dev/max_freq")
    assert board.exists("sys/devices/platform/gpu.0/tpc_pg_mask")
    assert board.read("sys/class/devfreq/17000000.gpu/device/of_node/name") == "gpu"


def test_another_process_sees_the_same_board(fake):
    board = fake()
    other = open_sysfs(board.root)
    board.write(CORE.format(11), 1)
    assert other.read("sys/devices/system/cpu/online").endswith(",11")
    other.write(CORE.format(11), 0)
    assert board.kernel.state.online[11] == 0


def test_boards_that_never_were_are_refused(folder):
    for name, jetpack in (("nano", "6"), ("xavier-nx", "6"), ("orin-nx", "5.0"), ("orin-nx", "4")):
        with pytest.raises(InvalidInput):
            make_fake_board(name, jetpack, folder / "none")
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    with pytest.raises(InvalidInput, match="not empty"):
        make_fake_board("nano", "4", folder / "full")


@pytest.mark.parametrize("damage", [("chip", "-"), ("online", []), ("gpu_hz", "fast")])
def test_a_state_that_cannot_be_shown_is_refused_in_one_line(tmp_path, damage):
    make_fake_board("orin-nano", "6", tmp_path / "board")
    marker = tmp_path / "board" / FAKE_MARKER
    marker.write_text(json.dumps(json.loads(marker.read_text()) | dict([damage])))
    with pytest.raises(InvalidInput, match="no fake board") as caught:
        open_sysfs(tmp_path / "board")
    assert "\n" not in str(caught.value)
