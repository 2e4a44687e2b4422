from __future__ import annotations

import csv
import math
from importlib import resources

import pytest

from powerctl.boards import NUMBER_FORMATS, board_names, load_board, releases
from powerctl.errors import InvalidInput, UnknownName
from tests.conftest import SHARED

ALL = [(name, l4t) for name in board_names() for l4t in releases(name)]


@pytest.mark.parametrize(
    ("name", "l4t", "n_modes"),
    [
        ("orin-agx", None, 18_096),
        ("orin-agx", "35.3.1", 15_312),
        ("xavier-agx", None, 29_232),
        ("orin-nano", None, 1_800),
    ],
)
def test_spaces_have_the_published_sizes(name, l4t, n_modes):
    assert len(load_board(name, l4t).space) == n_modes


@pytest.mark.parametrize(
    ("name", "l4t", "tflops", "gb_s"),
    [
        ("orin-agx", None, 5.33, 204.8),
        ("orin-agx-32gb", None, 3.34, 204.8),
        ("orin-nx", None, 1.88, 102.4),
        ("orin-nx", "36.4", 2.40, 102.4),
        ("orin-nx-8gb", None, 1.57, 102.4),
        ("orin-nano", None, 1.28, 68.3),
        ("orin-nano", "36.4", 2.09, 102.4),
        ("orin-nano-4gb", None, 0.64, 34.1),
        ("xavier-agx", None, 1.41, 136.5),
        ("xavier-nx", None, 0.85, 59.7),
        ("nano", None, 0.236, 25.6),
    ],
)
def test_peaks_are_the_data_sheets(name, l4t, tflops, gb_s):
    board = load_board(name, l4t)
    assert board.peak_flops() / 1e12 == pytest.approx(tflops, rel=0.01)
    assert board.peak_bandwidth() / 1e9 == pytest.approx(gb_s, rel=0.01)


@pytest.mark.parametrize(("name", "l4t"), ALL)
def test_every_board_has_a_default_preset_a_total_rail_and_matching_constants(name, l4t):
    board = load_board(name, l4t)
    assert sum(preset.is_default for preset in board.presets) == 1
    assert any(rail.in_total for rail in board.rails)
    assert board.hardware.flop_per_gpu_cycle == 2 * board.cuda_cores
    oldest = load_board(name).space.maximum
    assert board.hardware.max_gpu_hz == oldest.gpu_hz
    assert board.hardware.max_mem_hz == oldest.mem_hz
    assert board.hardware.max_cpu_hz == 1e3 * oldest.cpu_khz


CONFS = {
    "orin-agx": "nvpmodel_p3701_0000.conf",
    "orin-agx-32gb": "nvpmodel_p3701_0004.conf",
    "orin-nx": "nvpmodel_p3767_0000.conf",
    "orin-nx-8gb": "nvpmodel_p3767_0001.conf",
    "orin-nano": "nvpmodel_p3767_0003.conf",
    "orin-nano-4gb": "nvpmodel_p3767_0004.conf",
    "xavier-nx": "nvpmodel_t194_p3668.conf",
}


@pytest.mark.parametrize("name", CONFS)
def test_presets_are_nvidias(name):
    path = SHARED / "nvpmodel_modes.csv"
    if not path.exists():
        pytest.skip("no table of nvpmodel modes here")
    with open(path, newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["file"] == CONFS[name] and row["source"] == "L4T-35.3.1"
        ]
    board = load_board(name, "35.3.1")
    assert [row["mode_name"] for row in rows] == [preset.name for preset in board.presets]
    for row, preset in zip(rows, board.presets, strict=True):
        cpu_khz = max(int(part.split(":")[1]) for part in row["cpu_max_khz_per_cluster"].split())
        limits = [int(row["n_cpu_online"]), cpu_khz, int(row["gpu_max_hz"]), int(row["emc_max_hz"])]
        wanted = board.space.capped([limit if limit > 0 else None for limit in limits])
        assert preset.mode == wanted, preset.name
        assert preset.is_default == (row["default"] == "yes")
        assert preset.tpc_pg_mask == int(row["tpc_pg_mask"] or 0)


def test_presets_are_found_by_name_and_number():
    board = load_board("orin-agx")
    assert board.preset("mode_30w") is board.preset("2") is board.preset("30W")
    assert board.mode("30w") == board.mode("MODE_30W") == board.preset("2").mode
    with pytest.raises(UnknownName, match="MODE_15W"):
        board.preset("31W")


@pytest.mark.parametrize(
    ("name", "l4t", "limit_w", "preset"),
    [
        ("orin-agx", None, math.inf, "MAXN"),
        ("orin-agx", None, 60.0, "MODE_50W"),
        ("orin-agx", None, 49.9, "MODE_30W"),
        ("orin-agx", None, 9.0, "MODE_15W"),
        ("orin-nano", None, math.inf, "15W"),
        ("orin-nano", "36.4", math.inf, "MAXN_SUPER"),
        ("orin-nano", "36.4", 100.0, "25W"),
        ("orin-nano-4gb", None, 8.0, "7W_AI"),
        ("xavier-agx", None, 30.0, "MODE_30W_ALL"),
        ("xavier-agx", None, 15.0, "MODE_15W_DESKTOP"),
        ("xavier-nx", None, 15.0, "MODE_15W_6CORE"),
        ("nano", None, 10.0, "5W"),
    ],
)
def test_the_preset_for_a_limit_promises_to_keep_it_or_is_the_lowest(name, l4t, limit_w, preset):
    assert load_board(name, l4t).preset_within(limit_w).name == preset


@pytest.mark.parametrize(("name", "l4t"), ALL)
def test_short_names_of_presets_tell_them_apart(name, l4t):
    board = load_board(name, l4t)
    for preset in board.presets:
        assert board.mode(preset.name.removeprefix("MODE_")) == preset.mode


def test_a_text_that_is_no_mode_is_answered_with_the_presets():
    with pytest.raises(InvalidInput, match="cores/CPU/GPU/memory.*MAXN, MODE_15W, MODE_30W"):
        load_board("orin-agx").mode("31W")


def test_aliases_lead_to_the_same_board():
    assert load_board("orin-nano-8gb").name == "orin-nano"


def test_a_release_is_named_with_the_board_and_told():
    old, new = load_board("orin-nano"), load_board("orin-nano@36.4")
    assert new == load_board("orin-nano", "36.4") and new.name == "orin-nano"
    assert old.label == "orin-nano, L4T 35.3 (--l4t 36.4: GPU to 1020 MHz)"
    assert new.label == "orin-nano, L4T 36.4"
    assert load_board("xavier-nx").label == "xavier-nx, L4T 32.1"  # the only one
    with pytest.raises(InvalidInput, match=r"L4T 1\.0.*oldest is 35\.3"):
        load_board("orin-nano@1.0")


def test_an_unknown_board_or_an_older_release_is_named():
    with pytest.raises(UnknownName) as refused:
        load_board("ori" + "n" * 5000)
    assert len(str(refused.value)) < 700 and "nnn'...: " in str(refused.value)
    with pytest.raises(UnknownName, match="did you mean 'orin-agx'"):
        load_board("orin-agz")
    with pytest.raises(InvalidInput, match=r"L4T 32\.1.*oldest is 34\.1"):
        load_board("orin-agx", "32.1")
    with pytest.raises(InvalidInput, match="JP5"):
        load_board("orin-agx", "JP5")


@pytest.mark.parametrize(
    ("name", "number_format", "tera"),
    [
        ("orin-agx", "int8", 170 / 2),  # data sheets say TOPS with sparsity, twice the dense ones
        ("orin-agx-32gb", "int8", 108 / 2),
        ("orin-nx", "int8", 60 / 2),
        ("orin-nx-8gb", "int8", 50 / 2),
        ("orin-nano", "int8", 40 / 2),
        ("orin-nano-4gb", "int8", 20 / 2),
        ("xavier-agx", "int8", 22),
        ("xavier-agx", "fp16", 11),
        ("nano", "fp16", 0.472),
    ],
)
def test_peaks_of_number_formats_are_the_data_sheets(name, number_format, tera):
    assert load_board(name).peak_flops(number_format=number_format) / 1e12 == pytest.approx(
        tera, rel=0.03
    )


@pytest.mark.parametrize("name", board_names())
def test_tensor_cores_double_their_rate_as_numbers_halve(name):
    board = load_board(name)
    fp32, tf32, fp16, int8 = map(board.operations, NUMBER_FORMATS)
    assert fp32 == 2 * board.cuda_cores
    assert tf32 in (fp32, 4 * fp32) and fp16 >= 2 * fp32
    assert tf32 == fp32 or (fp16, int8) == (2 * tf32, 4 * tf32)


def test_a_board_of_more_modes_than_can_be_looked_at_is_refused(tmp_path):
    text = (resources.files("powerctl") / "boards/nano.toml").read_text()
    for axis in ("cores", "gpu_hz", "mem_hz"):
        before, _, after = text.partition(f"\n{axis} = [")
        text = f"{before}\n{axis} = {list(range(1, 600))}\n{after.partition(']')[2]}"
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InvalidInput, match=r"mine\.toml.*modes are more than"):
        load_board(str(tmp_path / "mine.toml"))


def test_an_unknown_number_format_is_refused(tmp_path):
    with pytest.raises(UnknownName, match="known: fp16, fp32, int8, tf32"):
        load_board("orin-agx").operations("fp61")
    text = (resources.files("powerctl") / "boards/nano.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("fp16 = 512", "fp8 = 512"))
    with pytest.raises(InvalidInput, match="fp8"):
        load_board(str(path))
