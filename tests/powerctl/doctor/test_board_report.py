"""From a board that nobody knows to its file: `doctor --report`, then `board new`."""

from __future__ import annotations

import getpass
import socket

import pytest
from click.testing import CliRunner

from powerctl.boards import load_board
from powerctl.commands.board_catalogue import board
from powerctl.commands.jetson_board import doctor
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import InvalidInput
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.identity import identify
from powerctl.reading import read_toml
from powerctl.toml_writing import toml_text
from tests.powerctl.jetson.conftest import fake, folder  # noqa: F401, fixtures

PERSONAL = "anna-secret"


@pytest.fixture
def stranger(fake):  # noqa: F811
    """An Orin NX that says that it is an unknown module, built by somebody."""
    made = fake("orin-nx", "6")
    tree = made.root / "proc/device-tree"
    (tree / "compatible").write_text("acme,box+p9767-0009\0nvidia,tegra234\0")
    (tree / "nvidia,dtsfilename").write_text(f"/home/{PERSONAL}/kernel/tegra234-box.dts\0")
    (tree / "serial-number").write_text(f"{PERSONAL}\0")
    conf = made.root / "etc/nvpmodel.conf"
    conf.write_text(f"# of {PERSONAL}\n{conf.read_text()}")
    return made


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where own boards are put."""
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(command, *arguments):
    done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def reported(made, tmp_path, *options):
    run(doctor, "--root", made.root, "--report", tmp_path / "board.txt", *options)
    return tmp_path / "board.txt"


def test_a_board_is_added_by_two_commands_and_is_known_from_then_on(stranger, tmp_path, home):
    report = reported(stranger, tmp_path)
    said = run(board, "new", report, "--cuda-cores", "1024")
    assert str(home / "boards/p9767-0009.toml") in said and "VDD_IN (in the total)" in said
    added, twin = load_board("p9767-0009"), load_board("orin-nx", "36.4")
    assert added.space.axes == twin.space.axes and added.cuda_cores == 1024
    assert [p.mode.values for p in added.presets] == [p.mode.values for p in twin.presets]
    assert [(r.label, r.address, r.channel) for r in added.rails] == [
        (r.label, r.address, r.channel) for r in twin.rails
    ]
    assert added.hardware == twin.hardware and added.is_catalogued
    assert identify(stranger).name == "p9767-0009"
    with FakeJetson(stranger.root) as device:
        assert device.board.is_catalogued and "verified" not in device.energy_source


def test_nothing_of_its_owner_is_in_a_report(stranger, tmp_path):
    text = reported(stranger, tmp_path).read_text()
    private = {PERSONAL, socket.gethostname(), str(stranger.root), str(tmp_path), "boot"}
    private |= {getpass.getuser()} - {"root"}
    assert not [word for word in private if word in text]
    assert stranger.read("proc/sys/kernel/random/boot_id") not in text


def test_a_report_is_written_where_something_is_missing_and_no_board_is_made_of_it(
    stranger, tmp_path
):
    (stranger.root / FAKE_MARKER).unlink()  # nobody brings it back
    (stranger.root / "sys/kernel/debug/bpmp/debug/clk/emc/rate").unlink()
    report = reported(stranger, tmp_path)
    assert "mount -t debugfs" in report.read_text()
    with pytest.raises(InvalidInput, match=r"lacks mem_hz: write it as root, or with the daemon"):
        run(board, "new", report)


def test_a_report_without_a_release_asks_for_it(stranger, tmp_path):
    (stranger.root / "etc/nv_tegra_release").unlink()
    report = reported(stranger, tmp_path)
    with pytest.raises(InvalidInput, match="give --l4t"):
        run(board, "new", report)
    run(board, "new", report, "--l4t", "36.5", "--like", "orin-agx", "--out", tmp_path / "b.toml")
    made = load_board(str(tmp_path / "b.toml"))
    assert made.l4t == "36.5" and made.hardware == load_board("orin-agx").hardware


@pytest.mark.parametrize(
    ("line", "instead", "field"),
    [
        ("model = ", "model = 7", "model"),
        ("cpu_khz = [", "cpu_khz = 5\nold = [", "cpu_khz"),
        ("cores = [", 'cores = ["a"]\nold = [', "cores"),
        ("label = ", "label = [1]", "rail label"),
        ("id = ", "id = -1", "preset id"),
        ("gpu_hz = [", "gpu_hz = [9, 1]\nold = [", "gpu_hz"),
    ],
)
def test_a_report_that_was_tampered_with_is_refused_in_one_line(
    stranger, tmp_path, line, instead, field
):
    report = reported(stranger, tmp_path)
    text = report.read_text()
    at = text.index(f"\n{line}") + 1
    rest = text[at + len(line) :] if line.endswith("[") else text[text.index("\n", at) :]
    report.write_text(f"{text[:at]}{instead}{rest}")
    with pytest.raises(InvalidInput, match=field) as refused:
        run(board, "new", report)
    assert "\n" not in str(refused.value)


def test_a_report_cannot_say_where_its_file_is_put(stranger, tmp_path, home):
    report = reported(stranger, tmp_path)
    report.write_text(report.read_text().replace('name = "p9767-0009"', 'name = "../evil"', 1))
    with pytest.raises(InvalidInput, match="no name for a board: give --name"):
        run(board, "new", report)
    assert not list(tmp_path.rglob("*evil*"))
    run(board, "new", report, "--name", "mine")
    assert load_board("mine").title and (home / "boards/mine.toml").exists()


def test_what_is_written_as_toml_is_read_back(tmp_path):
    values = {
        **{"text": 'a "b" \\ \n\x7f é', "yes": True, "number": 1.5, "none": [], "far": 10**12},
        "long": list(range(100_000, 100_100)),
        "texts": [f"a line of many words, and of a number: {n}" * 3 for n in range(4)],
        "table": {"within": {"deep": ["a", "b"]}},
        "many": [{"a": 1, "inner": [{"b": 2}, {"b": 3}]}, {"a": 4}],
    }
    (tmp_path / "x.toml").write_text(toml_text(values), encoding="utf-8")
    assert read_toml(tmp_path / "x.toml") == values
    assert max(map(len, toml_text({"long": values["long"]}).splitlines())) <= 100
