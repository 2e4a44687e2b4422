from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from powerctl.boards import load_board
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce, UnknownName
from powerctl.jetson.discovery import discover
from powerctl.jetson.nvpmodel import (
    CONFIGURATION,
    parse_configuration,
    read_configuration,
    running_preset,
    switch,
)
from powerctl.jetson.sysfs import Sysfs

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
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL  ID=3 NAME=15W >", "header"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL ID=0 NAME=15W >", "0 is there twice"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL NAME=15W >", "needs ID and NAME"),
        ("< POWER_MODEL ID=3 NAME=15W >", "< POWER_MODEL ID=x NAME=15W >", "'x' is not a number"),
        ("NAME=15W", f"NAME={'W' * 32}", "more than 31"),
        ("GPU MAX_FREQ 408000000", "GPU MIN_FREQ 0", "GPU MIN_FREQ is not declared"),
        ("GPU MAX_FREQ 408000000", "GPU MAX_FREQ", "does not belong here"),
        ("DEFAULT=3", "DEFAULT=7", "POWER_MODEL 7, which is not above"),
        ("TYPE=CLOCK NAME=GPU", "TYPE=CLOCKS NAME=GPU", "FILE or CLOCK"),
    ],
)
def test_a_defect_is_refused_with_its_line(line, wrong, said):
    assert line in SMALL
    with pytest.raises(InvalidInput, match=said):
        parse_configuration(SMALL.replace(line, wrong))


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
    found, masks = read_configuration(board), board.kernel.state.masks
    switch(board, found.preset("MODE_30W_ALL"), masks)
    assert running_preset(board) == 3
    assert str(board.mode()) == "8c/1190/905/1600"
    with pytest.raises(ModeNotInForce, match=r"MODE_10W needs a reboot.*tpc_pg_mask 0 -> 5"):
        switch(board, found.preset("MODE_10W"), masks)
    assert running_preset(board) == 3


def test_what_nvpmodel_says_is_passed_on(fake, monkeypatch):
    board = fake("xavier-nx", "5.1")
    preset = read_configuration(board).preset("6")

    def failing(id):
        assert id == 6
        return subprocess.CompletedProcess((), 255, "", "NVPM ERROR: optMask is 1\n")

    monkeypatch.setattr(board, "nvpmodel", failing)
    with pytest.raises(ModeNotInForce, match=r"ended with 255, the mode is 5: .*optMask"):
        switch(board, preset, {})
    with pytest.raises(DeviceUnavailable, match="of this machine"):
        switch(Sysfs(board.root), preset, {})


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
