"""A board that the catalogue lacks works: by its kernel's axes, its presets, its rails' labels."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from powerctl.board_files import UNVERIFIED
from powerctl.boards import load_board
from powerctl.commands.jetson_board import doctor
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import DeviceUnavailable, UnknownName
from powerctl.jetson.rails import RailPower, RailSensor, total_labels
from powerctl.powertrain.gaussian import GaussianPredictor
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture
from tests.powerctl.jetson.conftest import settings

pytestmark = pytest.mark.usefixtures("quick_torch")

STRANGER = "p9701-0007"
CARRIER = "nvidia,p9737-0000"


@pytest.fixture
def stranger(fake):
    """An AGX Orin that says that it is a board nobody has heard of."""
    board = fake("orin-agx", "6")
    compatible = f"{CARRIER}+{STRANGER}\0nvidia,tegra234\0"
    (board.root / "proc/device-tree/compatible").write_text(compatible)
    return board


def test_a_board_that_the_catalogue_lacks_is_called_by_its_module_and_sets_modes(stranger):
    before, known = settings(stranger), load_board("orin-agx", "35.2")
    with FakeJetson(stranger.root) as device:
        board = device.board
        assert (board.name, board.l4t, board.is_catalogued) == (STRANGER, "36.4.0", False)
        assert device.space.axes == known.space.axes, "of the kernel"
        assert [(p.name, p.mode.values) for p in board.presets] == [
            (p.name, p.mode.values) for p in known.presets
        ], "of its nvpmodel.conf"
        assert board.preset("MODE_30W").is_default
        for mode in (device.space.maximum, device.space.minimum):
            device.apply(mode)
            assert stranger.mode() == mode
        assert UNVERIFIED in device.energy_source
    assert settings(stranger) == before


def test_predictors_of_it_can_be_made_where_it_was_found(stranger):
    with pytest.raises(UnknownName):
        load_board("p9701-0008")
    with FakeJetson(stranger.root) as device:
        found = device.board
        assert GaussianPredictor(found.name, l4t=found.l4t).board == STRANGER
        assert load_board(STRANGER) is load_board(STRANGER, found.l4t) is found
        assert found.hardware == load_board("orin-agx").hardware, "lent by what is most like it"


def test_a_board_without_presets_has_its_highest_mode(stranger):
    (stranger.root / "etc/nvpmodel.conf").unlink()
    with FakeJetson(stranger.root) as device:
        assert [p.mode for p in device.board.presets] == [device.space.maximum]


def test_the_doctor_says_that_the_total_is_not_verified(stranger):
    done = CliRunner().invoke(doctor, ["--root", str(stranger.root)], catch_exceptions=False)
    assert done.exit_code == 0 and UNVERIFIED in done.output, done.output
    said = json.loads(CliRunner().invoke(doctor, ["--root", str(stranger.root), "--json"]).stdout)
    assert said["board"] is None and said["ok"] and said["total_w"] > 0


def test_without_a_part_number_it_is_called_as_the_device_tree_calls_it(stranger):
    tree = stranger.root / "proc/device-tree/compatible"
    for said, name in (
        ("edge-box-9", "edge-box-9"),
        ("../a=b.toml@36", "a-b-toml-36"),
        ("/", "unnamed"),
    ):
        tree.write_text(f"acme,{said}\0nvidia,tegra234\0")
        with FakeJetson(stranger.root) as device:
            assert device.board.name == name


@pytest.mark.parametrize(
    ("labels", "total"),
    [
        (("VDD_BIG", "CARRIER_IN", "VDD_SMALL"), ("CARRIER_IN",)),
        (("VIN", "VDD_NEW"), ("VIN",)),
        (("VDD_ONE", "VDD_MAIN", "VINYL"), ("VDD_ONE", "VDD_MAIN", "VINYL")),
        (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "OTHER"),
         ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
    ],
)  # fmt: skip
def test_the_total_of_rails_that_no_board_has_is_the_input_else_all(labels, total):
    rails = [RailSensor(label, ("a", "b"), 1e-6) for label in labels]
    assert total_labels(rails, "labels") == total


def test_rails_that_a_catalogued_board_should_not_have_are_refused(fake):
    board = fake("nano", "4")
    with board._changing() as kernel:
        kernel.state.rails[0][0] = "STRANGE_IN"
    with pytest.raises(DeviceUnavailable, match="STRANGE_IN"):
        RailPower(board)
