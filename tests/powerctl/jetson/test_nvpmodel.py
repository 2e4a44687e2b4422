from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from powerctl.axes import ModeAxes
from powerctl.boards import load_board
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce, UnknownName
from powerctl.jetson.controller import OwnController
from powerctl.jetson.discovery import discover
from powerctl.jetson.nvpmodel import (
    CONFIGURATION,
    describe_presets,
    parse_configuration,
    read_configuration,
    running_preset,
    switch,
)
from powerctl.jetson.sysfs import Sysfs


def meaning(text):
    """What a configuration says: its default, and the limits and masks of each preset."""
    found = parse_configuration(text)
    return found.default, [(p.id, p.name, p.limits(), p.masks()) for p in found.presets]


def reports(board):
    """The presets of a board, as they are listed."""
    return describe_presets(read_configuration(board), discover(board), board)


SMALL = """\
# a comment
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
CORE_1 /sys/devices/system/cpu/cpu1/online

< PARAM TYPE=CLOCK NAME=CPU_A78_0 >
FREQ_TABLE /sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies
MAX_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq

< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/17000000.ga10b/devfreq_dev/max_freq

< PARAM TYPE=FILE NAME=TPC_POWER_GATING >
TPC_PG_MASK /sys/devices/gpu.0/tpc_pg_mask

< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 1
TPC_POWER_GATING TPC_PG_MASK 0
CPU_A78_0 MAX_FREQ -1
GPU MAX_FREQ 9223372036854775807

< POWER_MODEL ID=3 NAME=15W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_1 0
TPC_POWER_GATING TPC_PG_MASK 248
CPU_A78_0 MAX_FREQ 1113600
GPU MAX_FREQ 408000000

< PM_CONFIG DEFAULT=3 >
< FAN_CONFIG DEFAULT=quiet >
"""


def test_a_configuration_is_read():
    found = parse_configuration(SMALL)
    assert [(preset.id, preset.name) for preset in found.presets] == [(0, "MAXN"), (3, "15W")]
    assert found.default == 3
    assert found.preset("maxn").limits() == (2, None, None, None)
    assert found.preset("3").limits() == (1, 1_113_600, 408_000_000, None)
    assert found.preset("15W").masks() == {"tpc_pg_mask": 248}
    with pytest.raises(UnknownName, match="known: 15W, MAXN"):
        found.preset("30W")


@pytest.mark.parametrize(
    "line, wrong, said",
    [
        ("< POWER_MODEL ID=3 NAME=15W >", " < POWER_MODEL ID=3 NAME=15W >", "line 23: .*header"),
        ("< POWER_MODEL ID=3 NAME=15W >", "<POWER_MODEL ID=3 NAME=15W>", "line 23: .*header"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL ID=0 NAME=15W >", "0 is there twice"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL NAME=15W >", "needs ID and NAME"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL ID=x NAME=15W >", "'x' is not a number"),
        ("NAME=15W", f"NAME={'W' * 32}", "more than 31"),
        ("GPU MAX_FREQ 408000000", "GPU MIN_FREQ 0", "GPU MIN_FREQ is not declared"),
        ("GPU MAX_FREQ 408000000", "GPU MAX_FREQ", "does not belong here"),
        ("DEFAULT=3", "DEFAULT=7", "line 30: the default is POWER_MODEL 7, which is not there"),
        ("GPU MAX_FREQ 408000000", "GPU MAX_FREQ max", "line 28: 'max' is not a number"),
        ("TPC_PG_MASK 248", "TPC_PG_MASK all", "line 26: 'all' is not a number"),
    ],
)
def test_a_defect_is_refused_with_its_line(line, wrong, said):
    assert line in SMALL
    with pytest.raises(InvalidInput, match=said):
        parse_configuration(SMALL.replace(line, wrong))


@pytest.mark.parametrize(
    "line, found",
    [
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL  ID=3   NAME=15W >"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL ID=3 NAME=15W >  # of the module"),
        ("TPC_POWER_GATING TPC_PG_MASK 248", "TPC_POWER_GATING TPC_PG_MASK 0248 # two TPCs"),
        ("TPC_POWER_GATING TPC_PG_MASK 248", "TPC_POWER_GATING TPC_PG_MASK 0xf8"),
        ("GPU MAX_FREQ 408000000", "GPU  MAX_FREQ   408000000"),
        ("# a comment", "\ufeff# of an editor that marks its files"),
    ],
)
def test_what_is_found_in_the_field_is_read_as_the_kernel_reads_it(line, found):
    """Leading zeros are decimal: nvgpu's sysfs.c takes masks by ``kstrtoul(buf, 10, &val)``."""
    assert line in SMALL
    assert meaning(SMALL.replace(line, found)) == meaning(SMALL)


def test_a_first_core_that_is_not_named_is_on():
    """As in nvpmodel_t186.conf of a TX2: it switches the others only."""
    text = "".join(line for line in SMALL.splitlines(keepends=True) if "CORE_0" not in line)
    found = parse_configuration(text)
    assert [preset.cores for preset in found.presets] == [2, 1]
    assert [preset.cores for preset in parse_configuration(SMALL).presets] == [2, 1]


def test_models_may_be_appended_below_the_default():
    models, _, end = SMALL.partition("< POWER_MODEL ID=3")
    configs = end[end.index("< PM_CONFIG") :]
    moved = f"{models}{configs}< POWER_MODEL ID=3{end[: end.index('< PM_CONFIG')]}"
    assert moved.index("< PM_CONFIG") < moved.index("< POWER_MODEL ID=3")
    assert meaning(moved) == meaning(SMALL)


def test_presets_are_the_catalogues(board):
    state = board.kernel.state
    known = load_board(state.board, state.l4t)
    found = read_configuration(board)
    assert {p.name: p.mode(known.space) for p in found.presets} == {
        p.name: p.mode for p in known.presets
    }
    assert running_preset(board) == found.default == state.preset


def test_presets_are_nvidias(fake, shared_table):
    """The limits of the faked files are those of NVIDIA's, collected elsewhere."""
    path = Path(__file__).resolve().parents[4] / "shared/data/nvpmodel_modes.csv"
    if not path.exists():
        pytest.skip("no collected presets here")
    files = {"nvpmodel_p3701_0000.conf": "orin-agx", "nvpmodel_t194.conf": "xavier-agx"}
    files |= {"nvpmodel_p3767_0003.conf": "orin-nano", "nvpmodel_t194_p3668.conf": "xavier-nx"}
    boards = {name: read_configuration(fake(name, "5.1")) for name in files.values()}
    compared = 0
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["source"] == "L4T-35.3.1" and row["file"] in files:
                preset = boards[files[row["file"]]].preset(row["mode_id"])
                cores, _, gpu_hz, mem_hz = preset.limits()
                assert preset.name == row["mode_name"]
                assert cores == int(row["n_cpu_online"])
                assert (gpu_hz or -1) == int(row["gpu_max_hz"])
                assert (mem_hz or 0) == int(row["emc_max_hz"] or 0)
                assert preset.masks().get("tpc_pg_mask", 0) == int(row["tpc_pg_mask"] or 0)
                compared += 1
    assert compared == 4 + 8 + 2 + 9


def test_where_a_preset_is_rounded_is_said(fake):
    board = fake("xavier-agx", "5.1")
    space = discover(board).axes()
    found = read_configuration(board)
    assert found.preset("MODE_30W_6CORE").rounding(space) == [
        "cpu 1450 -> 1420.8 MHz",
        "gpu 900 -> 905.25 MHz",
    ]
    assert found.preset("MAXN").rounding(space) == []


def test_a_switch_that_needs_no_reboot_is_made_and_another_refused(fake):
    board = fake("xavier-agx", "5.1")
    found = read_configuration(board)
    switch(board, found, found.preset("MODE_30W_ALL"))
    assert running_preset(board) == 3
    assert str(board.mode()) == "8c/1190/905/1600"
    with pytest.raises(ModeNotInForce, match=r"MODE_10W needs a reboot.*tpc_pg_mask 0 -> 5"):
        switch(board, found, found.preset("MODE_10W"))
    assert running_preset(board) == 3


def test_a_gpu_without_power_keeps_its_masks_and_what_needs_a_reboot(fake):
    board = fake("orin-agx", "5.1")
    awake = [preset.reboot for preset in reports(board)]
    board.leave_gpu()
    assert [preset.reboot for preset in reports(board)] == awake and any(awake)
    found = read_configuration(board)
    with pytest.raises(ModeNotInForce, match=r"MAXN needs a reboot.*tpc_pg_mask 240 -> 0"):
        switch(board, found, found.preset("MAXN"))


def test_a_mask_that_cannot_be_read_may_need_a_reboot(fake):
    board = fake("orin-agx", "5.1")
    found, file = read_configuration(board), board.root / board.kernel.layout.gpu / "tpc_pg_mask"
    file.unlink()
    file.mkdir()  # reading it is an error
    assert "tpc_pg_mask cannot be read -> 0" in found.preset("MAXN").needs_reboot(
        found.masks_in_force(board)
    )


def test_the_mask_of_a_newer_kernel_is_read_where_the_configuration_has_it(fake):
    """GPU_PG_MASK of JetPack 7 is applied at boot from a file of NVIDIA's set-up of the GPU."""
    board = fake("orin-agx", "6")
    (board.root / "opt").mkdir()
    (board.root / "opt/gpu_pg_mask").write_text("512\n")
    text = SMALL.replace("TPC_PG_MASK 248", "TPC_PG_MASK 248\nTPC_POWER_GATING GPU_PG_MASK 0")
    text = text.replace(
        "TPC_PG_MASK /sys/devices/gpu.0/tpc_pg_mask",
        "TPC_PG_MASK /sys/devices/gpu.0/tpc_pg_mask\n"
        "TPC_PG_MASK_KNEXT /sys/devices/platform/gpu.0/tpc_pg_mask\n"
        "GPU_PG_MASK /opt/gpu_pg_mask",
    )
    found = parse_configuration(text)
    assert found.masks_in_force(board) == {"tpc_pg_mask": 240, "gpu_pg_mask": 512}
    with pytest.raises(ModeNotInForce, match=r"tpc_pg_mask 240 -> 248, gpu_pg_mask 512 -> 0"):
        switch(board, found, found.preset("15W"))
    with pytest.raises(InvalidInput, match="reboot"):
        board.write("opt/gpu_pg_mask", 0)


def test_the_first_error_of_nvpmodel_is_the_cause_and_its_last_line_what_came_of_it(
    fake, monkeypatch
):
    board = fake("xavier-nx", "5.1")
    found, done = read_configuration(board), []
    preset = found.preset("6")
    monkeypatch.setattr(board, "nvpmodel", lambda id: done.pop())
    said = (
        "NVPM WARN: fan mode is not set\nNVPM ERROR: Error writing 1 to /sys/x/tpc_pg_mask: 16\n"
        "NVPM ERROR: optMask is 2, no request for power mode\n"
    )
    done.append(subprocess.CompletedProcess((), 255, "", said))
    with pytest.raises(
        ModeNotInForce,
        match=r"ended with 255, the mode is 5: NVPM ERROR: Error writing 1 .*: 16; then: .*optMask",
    ):
        switch(board, found, preset)
    done.append(subprocess.CompletedProcess((), 0, "", ""))
    with pytest.raises(ModeNotInForce, match=r"ended with 0, the mode is 5: .*read-only"):
        switch(board, found, preset)
    with pytest.raises(DeviceUnavailable, match="of this machine"):
        switch(Sysfs(board.root), found, preset)


def test_a_reboot_that_nvpmodel_asks_for_is_told_as_one(fake, monkeypatch):
    """Public logs of JetPack 6: once the GPU has been used, any change asks for one."""
    board = fake("orin-nano", "6")
    found = read_configuration(board)
    said = (
        "NVPM WARN: Golden image context is already created\n"
        "NVPM WARN: Reboot required for changing to this power mode: 0\n"
        "NVPM WARN: DO YOU WANT TO REBOOT NOW? enter YES/yes to confirm:\n"
        "NVPM ERROR: optMask is 1, no request for power mode\n"
    )
    done = subprocess.CompletedProcess((), 234, said, "")
    monkeypatch.setattr(board, "nvpmodel", lambda id: done)
    with pytest.raises(
        ModeNotInForce,
        match=r"^preset 15W needs a reboot: .*changing to this power mode: 0; .*nvpmodel -m 0$",
    ):
        switch(board, found, found.preset("15W"))


def test_nvpmodel_is_found_where_cron_does_not_look(tmp_path, monkeypatch):
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\necho $2")
    program.chmod(0o755)
    monkeypatch.setattr("powerctl.jetson.sysfs._SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Sysfs(Path("/")).nvpmodel(7).stdout == "7\n"


def test_which_switches_need_a_reboot_follows_the_masks(fake):
    def reboots(name, jetpack):
        board = fake(name, jetpack)
        masks = board.kernel.state.masks
        presets = read_configuration(board).presets
        return [p.name for p in presets if p.needs_reboot(masks)]

    assert reboots("orin-agx", "5.1") == ["MAXN", "MODE_15W", "MODE_50W"]
    assert reboots("xavier-agx", "5.1") == ["MODE_10W"]
    assert reboots("xavier-nx", "5.1") == reboots("nano", "4") == reboots("orin-nano", "6") == []


def test_without_a_configuration_there_are_no_presets(fake):
    board = fake()
    (board.root / CONFIGURATION).unlink()
    assert read_configuration(board) is None


def test_a_configuration_that_is_there_and_cannot_be_read_is_not_taken_for_none(fake):
    board = fake()
    (board.root / CONFIGURATION).unlink()
    (board.root / CONFIGURATION).symlink_to("nvpmodel/nvpmodel_p3701_0000.conf")
    with pytest.raises(InvalidInput, match=r"a link to /etc/nvpmodel/nvpmodel_p3701_0000.conf"):
        read_configuration(board)
    (board.root / CONFIGURATION).unlink()
    (board.root / CONFIGURATION).mkdir()
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        read_configuration(board)


@pytest.mark.parametrize(
    "board, l4t, preset, runs",
    [
        ("nano", "32.7.1", "5W", (921_600, 614_400_000)),
        ("xavier-agx", "35.3.1", "MODE_30W_4CORE", (1_804_800, 905_250_000)),
        ("xavier-agx", "35.3.1", "MODE_30W_2CORE", (2_112_000, 905_250_000)),
    ],
)
def test_a_limit_that_is_no_step_is_the_nearest_as_the_kernel_takes_it(board, l4t, preset, runs):
    mode = load_board(board, l4t).preset(preset).mode
    assert (mode.cpu_khz, mode.gpu_hz) == runs


@pytest.mark.parametrize(
    "limits, runs",
    [
        ((4, 2_000_000, 1_120_000_000, 1_600_000_000), (4, 2_035_200, 1_134_750_000, 1600_000_000)),
        ((4, 345_600, 850_000_000, None), (4, 345_600, 854_250_000, 1_866_000_000)),
    ],
)
def test_a_tx2_runs_where_its_nvpmodel_says_it_does(limits, runs):
    """Published: CONF_VAL 2000000 and 1120000000, REAL_VAL 2035200 and 1134750000."""
    tx2 = ModeAxes(
        (1, 2, 3, 4),
        (345_600, 1_113_600, 1_267_200, 1_881_600, 2_035_200),
        (114_750_000, 854_250_000, 1_032_750_000, 1_134_750_000, 1_300_500_000),
        (40_800_000, 1_331_200_000, 1_600_000_000, 1_866_000_000),
    )
    assert tx2.capped(limits).values == runs


def test_after_a_switch_list_and_board_say_the_same(board):
    """The preset that runs is listed as the mode that the kernel is in."""
    found = read_configuration(board)
    for preset in found.presets:
        if not preset.needs_reboot(found.masks_in_force(board)):
            switch(board, found, preset)
            listed = next(report for report in reports(board) if report.is_running)
            assert listed.mode == str(board.mode()) == str(OwnController(board).mode())
