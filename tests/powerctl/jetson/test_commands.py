"""The commands doctor, restore and fake-board."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from benchmarks import board_reads
from powerctl.boards import load_board
from powerctl.commands.jetson_board import doctor, fake_board, nvpmodel, restore_command
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import DeviceUnavailable
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal
from powerctl.jetson.nvpmodel import running_preset
from tests.powerctl.doctor.torches import write_torch
from tests.powerctl.jetson.conftest import as_if_killed, settings


@pytest.fixture
def run(tmp_path, monkeypatch):
    write_torch(tmp_path / "torch")  # which is imported at once
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "torch"))

    def run(command, *arguments, exit_code=0):
        done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == exit_code, done.output
        return done.stdout

    return run


def test_the_doctor_finds_every_board_well_and_changes_nothing(board, run):
    before = settings(board)
    said = json.loads(run(doctor, "--root", board.root, "--json"))
    assert said["ok"] and not said["missing"]
    assert said["board"] == board.kernel.state.board
    assert [axis["name"] for axis in said["axes"]] == ["cores", "cpu_khz", "gpu_hz", "mem_hz"]
    assert said["total_w"] == pytest.approx(5, abs=0.05)
    assert sum(preset["is_running"] for preset in said["presets"]) == 1
    assert settings(board) == before
    assert not list(board.root.glob("run/*")) and not list(board.root.glob("var/lib/powerctl/*"))


def test_the_doctor_speaks_to_people(fake, run):
    said = run(doctor, "--root", fake("xavier-agx", "4").root)
    assert "L4T 32.7.1 (JetPack 4.6.1), parts p2972-0000, p2888-0001" in said
    assert "gpu 520 -> 522.75 MHz; reboot:" in said
    assert "modes can be applied here" in said


def test_the_doctor_names_what_is_missing_and_the_remedy(folder, run):
    said = run(doctor, "--root", folder, exit_code=1)
    for remedy in (
        "which board this is cannot be seen",
        "cpufreq",
        "GPU driver",
        "mount -t debugfs",
        "ina3221",
    ):
        assert remedy in said


def test_the_doctor_sees_throttling_a_controller_and_what_a_killed_one_left(fake, run):
    board = fake()
    board.throttle(gpu_hz=612_000_000)
    assert "throttles now: cpu-throttle-alert slows down" in run(doctor, "--root", board.root)
    device = FakeJetson(board.root)
    device.apply(device.space.maximum)
    assert "controls this board" in run(doctor, "--root", board.root)
    as_if_killed(device)
    said = run(doctor, "--root", board.root, exit_code=1)
    assert "a killed controller left" in said and "sudo powerctl restore" in said


def test_a_clock_below_its_own_minimum_is_throttling(fake, run):
    board = fake("orin-nano", "6")
    assert "throttles now: no" in run(doctor, "--root", board.root)
    board.throttle(over_current=True, cpu_khz=576_000)
    said = run(doctor, "--root", board.root)
    assert "over-current since boot: oc3_event_cnt 1" in said
    assert "throttles now: policy0 runs at 576 MHz, below its lowest of 729.6 MHz" in said


@pytest.mark.parametrize("jetpack", ["5.1", "6"])
@pytest.mark.parametrize("file", ["emc_rate", "emc_hold", "emc_cap"])
def test_memory_files_that_are_there_and_cannot_be_read_keep_modes_from_being_set(
    fake, run, jetpack, file
):
    """As in a container, or where the kernel is locked down."""
    board = fake("orin-agx", jetpack)
    path = getattr(board.kernel.layout, file)
    with board_reads.damaged(path, board_reads.DAMAGES["not permitted"]):
        said = run(doctor, "--root", board.root, exit_code=1)
        assert (
            f"the memory clock cannot be read: [Errno 1] Operation not permitted: '/{path}'" in said
        )
        with pytest.raises(DeviceUnavailable, match="memory clock cannot be read.*run as root"):
            FakeJetson(board.root)


def test_what_this_user_may_not_set_is_said(fake, run, monkeypatch):
    from powerctl.fakes.fake_sysfs import FakeSysfs

    board = fake()
    monkeypatch.setattr(FakeSysfs, "may_write", lambda self, path: "devfreq" not in path)
    said = run(doctor, "--root", board.root, exit_code=1)
    assert "this user may not set gpu_hz" in said and "start the daemon" in said


def test_a_read_only_system_is_told_and_what_mends_it(fake, run, monkeypatch):
    """As images for products have it: their root takes no writes, by root neither."""
    board = fake()
    run(doctor, "--root", board.root)
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    said = run(doctor, "--root", board.root, exit_code=1)
    assert "var/lib/powerctl is read-only" in said and "mount -t tmpfs" in said

    def refuse(path, taken):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("powerctl.jetson.journal.lock_own", refuse)
    with FakeJetson(board.root) as device, pytest.raises(DeviceUnavailable, match="mount -t tmpfs"):
        device.apply(device.space.minimum)


def test_a_gpu_that_sleeps_is_no_defect_that_stays_unsaid(fake, run):
    board = fake()
    board.leave_gpu()
    assert "the GPU's power is off" in run(doctor, "--root", board.root, exit_code=1)


def test_restore_brings_back_what_a_killed_process_left(fake, run):
    board = fake()
    before = settings(board)
    assert "nothing to restore" in run(restore_command, "--root", board.root)
    device = FakeJetson(board.root)
    device.apply(device.space.minimum)
    as_if_killed(device)
    said = run(restore_command, "--root", board.root)
    assert "restored: " in said and "scaling_max_freq = 1728000" in said
    assert settings(board) == before and not Journal(board).found


def test_presets_are_listed_on_every_board_with_what_is_rounded_and_what_needs_a_reboot(board, run):
    listed = json.loads(run(nvpmodel, "--root", board.root, "--json"))
    known = load_board(board.kernel.state.board, board.kernel.state.l4t)
    assert [entry["name"] for entry in listed] == [preset.name for preset in known.presets]
    for entry, preset in zip(listed, known.presets, strict=True):
        assert entry["mode"] == str(preset.mode)
        switch = CliRunner().invoke(nvpmodel, [entry["name"], "--root", str(board.root)])
        if entry["reboot"]:
            assert "needs a reboot" in str(switch.exception)
        else:
            assert switch.exit_code == 0 and running_preset(board) == entry["id"]
            assert OwnController(board).mode() == preset.mode


def test_no_preset_is_switched_while_a_mode_is_held(fake, run):
    board = fake("xavier-agx", "5.1")
    with FakeJetson(board.root) as device:
        device.apply(device.space.maximum)
        with pytest.raises(DeviceUnavailable, match="controls this board"):
            run(nvpmodel, "MODE_30W_ALL", "--root", board.root)
    assert "3 MODE_30W_ALL" in run(nvpmodel, "mode_30w_all", "--root", board.root)
    assert running_preset(board) == 3


def test_without_nvpmodel_that_is_said(folder, run):
    with pytest.raises(DeviceUnavailable, match="not installed"):
        run(nvpmodel, "--root", folder)


def test_a_fake_board_is_made(folder, run):
    said = run(fake_board, "orin-nano", folder / "nano", "--jetpack", "6")
    assert "powerctl doctor --root" in said
    assert FakeJetson(folder / "nano").space.gpu_hz[-1] == 1_020_000_000
