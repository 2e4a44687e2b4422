"""Which board it is: by its device tree, by the daemon, or by what a person says."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from powerctl.board_files import UNKNOWN_RELEASE
from powerctl.boards import load_board
from powerctl.commands.jetson_board import doctor
from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.peers import Peer
from powerctl.daemon.remote import identity_by
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.jetson import board_found
from powerctl.devices.opening import open_device
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.discovery import discover
from powerctl.jetson.identity import identify
from powerctl.jetson.sysfs import Sysfs
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture

pytestmark = pytest.mark.usefixtures("quick_torch")


def board_of(sysfs):
    """The board of the catalogue, with the axes that are found."""
    found = discover(sysfs)
    return board_found(sysfs, found.identity, found.axes())


def in_a_container(board):
    """Take away what a container does not see of its host."""
    shutil.rmtree(board.root / "proc/device-tree")
    (board.root / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    (board.root / "etc/nv_tegra_release").unlink()


def rename(board, compatible):
    """Let the device tree say that it is another board."""
    (board.root / "proc/device-tree/compatible").write_text(compatible)


def release(board, text):
    (board.root / "etc/nv_tegra_release").write_text(text)


def test_every_board_is_known_by_its_device_tree(board):
    state = board.kernel.state
    found = identify(board)
    assert (found.name, found.l4t) == (state.board, state.l4t)
    assert found.jetpack.startswith(f"{state.jetpack}.")


@pytest.mark.parametrize(
    ("said", "jetpack"),
    [
        ("R32 (release), REVISION: 7.1", "4.6.1"),
        ("R36 (release), REVISION: 4.7", "6.2.1"),
        ("R36 (release), REVISION: 5.0", "6.2.2"),
        ("R38 (release), REVISION: 4.0", "7.1"),
        ("R39 (release), REVISION: 2.0", "7.2"),
        ("R39 (release), REVISION: 2.1", "7"),  # not listed: of its major version
        ("R99 (release), REVISION: 1.0", None),
    ],
)
def test_a_release_has_a_jetpack(fake, said, jetpack):
    board = fake("orin-agx", "6")
    release(board, f"# {said}, GCID: 1, BOARD: generic\n")
    assert identify(board).jetpack == jetpack


def test_the_doctor_never_says_jetpack_none(fake):
    board = fake("orin-agx", "6")
    release(board, "# R99 (release), REVISION: 1.0, GCID: 1\n")
    said = CliRunner().invoke(doctor, ["--root", str(board.root)]).output
    assert "L4T 99.1.0 (of no JetPack that is known here)" in said and "None" not in said


def test_a_board_of_an_unknown_release_is_not_recorded_as_of_another(fake):
    board = fake("orin-agx", "6")
    (board.root / "etc/nv_tegra_release").unlink()
    with FakeJetson(board.root) as device:
        assert (device.board.name, device.board.l4t) == ("orin-agx", UNKNOWN_RELEASE)
        assert device.space.gpu_hz == load_board("orin-agx", "35.2").space.gpu_hz
        assert device.board.presets == load_board("orin-agx", "35.2").presets, "of its own clocks"
        assert load_board("orin-agx", UNKNOWN_RELEASE) is device.board, "for what is fitted here"
    said = json.loads(CliRunner().invoke(doctor, ["--root", str(board.root), "--json"]).stdout)
    assert said["l4t"] is None and any("unknown" in note for note in said["notes"])


def test_a_dead_device_tree_is_told_with_what_mends_it(fake):
    board = fake()
    in_a_container(board)
    with pytest.raises(DeviceUnavailable, match=r"cannot be seen.*/run/powerctl.*--board"):
        board_of(board)


def test_a_person_can_say_which_board_it_is(fake, monkeypatch):
    board = fake("orin-agx", "5.1")
    in_a_container(board)
    assert open_device(f"jetson:{board.root}", board="orin-agx").board.name == "orin-agx"
    monkeypatch.setenv("POWERCTL_BOARD", "agx-orin")
    assert identify(board).called == "orin-agx"
    monkeypatch.delenv("POWERCTL_BOARD")
    with FakeJetson(board.root, named="orin-agx") as device:
        assert (device.board.name, device.board.l4t) == ("orin-agx", UNKNOWN_RELEASE)
    said = CliRunner().invoke(doctor, ["--root", str(board.root), "--board", "orin-agx"])
    assert said.exit_code == 0 and "orin-agx, says --board" in said.output


def test_what_a_person_says_against_the_device_tree_is_refused(fake):
    with pytest.raises(InvalidInput, match=r"--board orin-nx: .*p3701-0000.*which is orin-agx"):
        identify(fake("orin-agx"), "orin-nx")


def test_the_daemon_tells_who_the_board_is(fake):
    board = fake("orin-agx", "6")
    lock = BoardLock(board)
    seen = json.loads(json.dumps(lock.read(Client(Peer(1, 0, frozenset())))))
    in_a_container(board)
    told = identity_by(seen, board)
    assert (told.name, told.l4t, told.told_by) == ("orin-agx", "36.4.0", "the daemon")
    assert identity_by({}, board, "orin-agx").told_by == "--board", "of an older daemon"
    with pytest.raises(InvalidInput, match="the daemon says"):
        identity_by(seen, board, "nano")


@pytest.mark.parametrize("told", [{}, {"model": 7}, {"model": "x", "parts": "p3701-0000"}, [], 3])
def test_nonsense_told_is_refused_in_one_line(fake, told):
    with pytest.raises(InvalidInput, match="the daemon's identity"):
        identity_by({"identity": told}, fake())


def test_a_release_that_is_not_known_yet_takes_the_kernels_axes(fake):
    board = fake("orin-agx", "6")
    release(board, "# R39 (release), REVISION: 0.1, GCID: 1\n")
    assert board_of(board).l4t == "39.0.1"


def test_without_debugfs_the_remedy_is_said(fake):
    board = fake()
    emc = board.root / "sys/kernel/debug/bpmp/debug/clk/emc"
    (emc / "rate").unlink()
    with pytest.raises(DeviceUnavailable, match=r"memory clock.*mount -t debugfs"):
        board_of(board)


def test_an_empty_machine_is_no_jetson(folder):
    with pytest.raises(DeviceUnavailable, match="which board this is cannot be seen"):
        board_of(Sysfs(folder))
