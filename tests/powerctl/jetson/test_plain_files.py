"""The same code on plain files, as on a Jetson: nothing behind them but what was written."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from powerctl.devices.jetson import Jetson
from powerctl.errors import InvalidInput, ModeNotInForce
from powerctl.fakes.layout import CPU, FAKE_MARKER
from powerctl.jetson.sysfs import Sysfs, parse_cpu_list
from powerctl.workload import Workload
from tests.metering import counts
from tests.powerctl.jetson.conftest import as_if_killed

JOB = Workload("net", "train", 1)


@pytest.fixture
def root(fake, folder):
    """A board's files without the kernel that a fake has behind them."""
    shutil.copytree(fake("orin-agx", "5.1").root, folder / "plain", symlinks=True)
    (folder / "plain" / FAKE_MARKER).unlink()
    return folder / "plain"


def content(root):
    files = (path for path in (root / "sys").rglob("*") if path.is_file())
    return {str(path): path.read_text() for path in files if not path.is_symlink()}


def test_a_mode_is_applied_run_in_real_time_and_undone(root):
    before = content(root)
    with Jetson(root) as device:
        assert not device.is_virtual
        mode = device.space.parse("8c/1497/510/2133")
        device.apply(mode)
        assert device.mode() == mode
        hold = f"{CPU}/cpufreq/policy4/scaling_max_freq"
        assert device.sysfs.read(hold) == "1497600"
        device._controller._verification = None  # plain files measure no clocks
        assert device.execute(JOB, lambda: time.sleep(0.1)) >= 0.1
        with pytest.raises(InvalidInput, match="--task"):
            device.execute(JOB)
        assert counts(device.energy_j, device.power.total_w(), device.idle)
    after = content(root)
    changed = {path for path in before if before[path].strip() != after[path].strip()}
    assert {path.rpartition("/")[2] for path in changed} == {"rate"}, "it floats, by itself"


def test_a_file_that_takes_a_value_and_does_nothing_is_found_out(root):
    with Jetson(root) as device, pytest.raises(ModeNotInForce, match=r"^cores .*0,1,2,3,4,5,6,7"):
        device.apply(device.space.maximum)  # four more cores, which do not come online


def test_measured_clocks_count_and_not_those_asked_for(root):
    with Jetson(root) as device:
        device.apply(device.space.parse("8c/1497/510/2133"))
        with pytest.raises(ModeNotInForce, match=r"cpu \(policy0\).*asked 1497.6 .*at 1728 MHz"):
            device.execute(JOB, lambda: None)


def test_a_write_never_makes_a_file(folder):
    sysfs = Sysfs(folder)
    with pytest.raises(FileNotFoundError):
        sysfs.write("sys/nothing", 1)
    assert not list(folder.iterdir())


def test_what_is_no_number_is_an_error_that_names_the_file(folder):
    (folder / "text").write_text("<unsupported>\n")
    with pytest.raises(OSError, match="/text holds '<unsupported>'"):
        Sysfs(folder).read_int("text")
    assert Sysfs(folder).int_if("text") is None


def test_cpu_lists_are_read_as_the_kernel_writes_them():
    assert parse_cpu_list("0-3,6\n") == (0, 1, 2, 3, 6)
    assert parse_cpu_list("0 1 2") == (0, 1, 2)
    assert parse_cpu_list("") == ()


def test_a_fork_does_not_restore_what_its_parent_controls(root):
    device = Jetson(root)
    device.apply(device.space.parse("8c/1497/510/2133"))
    held = device.mode()
    child = os.fork()
    if child == 0:
        device._controller._control.give_back()
        os._exit(0)
    os.waitpid(child, 0)
    assert device.mode() == held
    as_if_killed(device)


@pytest.mark.parametrize("thing", ["endless", "large"])
def test_a_file_without_end_is_no_file_of_a_board(tmp_path, thing):
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"1" * (5 << 20))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="over 4 MiB"):
        Sysfs(tmp_path).read(thing)
    assert Sysfs(tmp_path).read_if(thing) is None and Sysfs(tmp_path).read("pipe") == ""
