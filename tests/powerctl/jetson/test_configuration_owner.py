"""Presets of another board are not believed, whatever puts its file there."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from powerctl.commands.jetson_board import doctor, nvpmodel
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.errors import InvalidInput
from powerctl.jetson.nvpmodel import read_configuration
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture

pytestmark = pytest.mark.usefixtures("quick_torch")

CONFIGURATION = "etc/nvpmodel.conf"


def install(board, other, name=None):
    """Put the configuration of another board in place, by a link to a name if there is one."""
    own = board.root / CONFIGURATION
    text = (other.root / CONFIGURATION).read_text()
    own.unlink()
    if name is None:
        own.write_text(text)
        return
    (board.root / "etc/nvpmodel").mkdir()
    (board.root / "etc/nvpmodel" / name).write_text(text)
    own.symlink_to(f"nvpmodel/{name}")


@pytest.mark.parametrize(
    ("name", "other", "why"),
    [
        ("orin-agx", "orin-nano", "cores to 5, and this board has them to 11"),
        ("orin-nano", "orin-nx", "cores to 7, and this board has them to 5"),
    ],
)
def test_a_file_that_switches_other_cores_is_of_another_board(fake, name, other, why):
    board = fake(name, "5.1")
    install(board, fake(other, "5.1"))
    with pytest.raises(InvalidInput, match=why):
        read_configuration(board)


def test_a_link_to_another_boards_file_is_told(fake):
    board = fake("orin-agx-32gb", "5.1")
    install(board, fake("orin-nx", "5.1"), "nvpmodel_p3767_0000.conf")  # of as many cores
    said = json.loads(CliRunner().invoke(doctor, ["--root", str(board.root), "--json"]).stdout)
    assert said["presets"] == [], "nobody is told to reboot into them"
    assert any("is of orin-nx, and this board is orin-agx-32gb" in note for note in said["notes"])
    assert said["ok"], "modes are set without them"
    refused = CliRunner().invoke(nvpmodel, ["MAXN", "--root", str(board.root)])
    assert isinstance(refused.exception, InvalidInput)


def test_modules_that_share_a_file_are_not_told_apart(fake):
    board = fake("orin-agx", "5.1")
    shutil.move(board.root / CONFIGURATION, board.root / "etc/nvpmodel_p3701_0005.conf")
    (board.root / CONFIGURATION).symlink_to("nvpmodel_p3701_0005.conf")
    assert read_configuration(board).presets


def test_modes_are_set_all_the_same(fake):
    board = fake("orin-nano", "5.1")
    install(board, fake("orin-nx", "5.1"))
    with FakeJetson(board.root) as device:
        device.apply(device.space.minimum)
        assert board.mode() == device.space.minimum
