"""A Thor under JetPack 7: known by name, its clocks and presets are its kernel's."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from powerctl.commands.jetson_board import doctor
from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.peers import Peer
from powerctl.devices.jetson import Jetson
from powerctl.errors import InvalidInput
from powerctl.jetson.discovery import discover
from powerctl.jetson.identity import identity_told
from powerctl.jetson.rails import RailPower
from powerctl.jetson.sysfs import Sysfs
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture
from tests.powerctl.jetson import thor

pytestmark = pytest.mark.usefixtures("quick_torch")


@pytest.fixture
def root(folder):
    """The tree of a Thor."""
    return thor.make_thor(folder / "thor")


def diagnosis(root):
    return json.loads(CliRunner().invoke(doctor, ["--root", str(root), "--json"]).stdout)


def remedies(root):
    return " ".join(f"{item['what']}: {item['remedy']}" for item in diagnosis(root)["missing"])


def test_it_is_known_and_its_gpu_is_that_of_the_graphics_engines(root):
    with Jetson(root) as device:
        board = device.board
        assert (board.name, board.l4t, board.is_catalogued) == ("agx-thor-t5000", "38.4.0", False)
        assert board.cuda_cores == 2560 and board.peak_flops(1e9) == 2 * 2560 * 1e9
        assert device.space.cores == tuple(range(1, thor.CORES + 1))
        assert device.space.cpu_khz == thor.CPU_KHZ and device.space.gpu_hz == thor.GPU_HZ
        assert device.space.mem_hz[-1] == thor.EMC_HZ[-1]
        assert [preset.name for preset in board.presets] == list(thor.PRESETS)
    found = discover(Sysfs(root))
    assert found.gpu.devfreq.endswith("gpu-gpc-0") and not found.gpu_is_gated


def test_its_power_is_that_of_its_input_though_a_rail_reads_below_zero(root):
    power = RailPower(Sysfs(root), "labels")
    assert power.labels == ("VIN",) and power.total_w() == pytest.approx(23.4)
    assert diagnosis(root)["rails"]["VDD_GPU"] < 0


def test_its_daemon_tells_its_power_and_which_board_it_is(root):
    seen = BoardLock(Sysfs(root)).read(Client(Peer(1, 0, frozenset())))
    assert seen["power_w"] == pytest.approx(23.4)
    told = identity_told({**seen["identity"], "of a later version": 1})
    assert told.called == "agx-thor-t5000" and told.total_rule == "labels"


def test_a_long_list_of_clocks_is_taken(root):
    """Of 9 MHz a step up to 2601, as its clock generator has them."""
    ladder = " ".join(str(9000 * n) for n in range(6, 290))
    for policy in root.glob("sys/devices/system/cpu/cpufreq/policy*"):
        (policy / "scaling_available_frequencies").write_text(ladder)
    with Jetson(root) as device:
        assert len(device.space.cpu_khz) == 284 and device.space.cpu_khz[-1] == 2_601_000


def test_the_doctor_knows_its_jetpack_and_misses_nothing(root):
    said = diagnosis(root)
    assert (said["jetpack"], said["board"], said["missing"]) == ("7.1", None, [])
    assert "Thor" in said["notes"][0] and "unverified" not in said["notes"][0]


def test_its_mask_of_power_gating_is_never_written(root):
    with pytest.raises(InvalidInput, match="reboot"):
        Sysfs(root).write(thor.MASK, 0)


def test_beside_a_driver_it_is_not_told_to_load_one(root):
    for domain in ("gpu-gpc-0", "gpu-nvd-0"):
        (root / "sys/class/devfreq" / domain).unlink()
    assert "no GPU clock" in remedies(root) and "--report" in remedies(root)
    (root / "sys/module/nvidia/version").unlink()
    (root / "sys/module/nvidia").rmdir()
    assert "load NVIDIA's GPU driver" in remedies(root)


@pytest.mark.parametrize(
    ("mounts", "shows_clocks", "remedy"),
    [
        ("", False, "mount -t debugfs"),
        ("debugfs /sys/kernel/debug debugfs rw 0 0\n", False, "it is mounted|is mounted, and root"),
        ("debugfs /sys/kernel/debug debugfs rw 0 0\n", True, "doctor --report"),
    ],
)
def test_debugfs_that_is_mounted_is_not_to_be_mounted(root, mounts, shows_clocks, remedy):
    (root / "sys/kernel/debug/bpmp/debug/clk/emc/rate").unlink()
    (root / "proc/mounts").write_text(f"sysfs /sys sysfs rw 0 0\n{mounts}")
    if shows_clocks:
        (root / "sys/kernel/debug/clk").mkdir()
    assert re.search(f"memory clock.*({remedy})", remedies(root))
