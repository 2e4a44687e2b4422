"""In a container: the daemon of the host says which board it is, and the doctor what is missing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks.board_reads import DAMAGES, damaged
from powerctl.commands.jetson_board import doctor
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.jetson import Jetson
from powerctl.errors import DeviceUnavailable
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.container import CONTAINER_OPTIONS
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture
from tests.powerctl.jetson.test_identity import in_a_container

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("quick_torch")]


def diagnosis(root):
    return json.loads(CliRunner().invoke(doctor, ["--root", str(root), "--json"]).stdout)


@pytest.fixture
def board(fake):
    return fake("orin-nano", "6")


def test_a_container_with_the_daemons_socket_sets_modes_of_its_board(board, serve):
    serve(board.root)
    in_a_container(board)
    (board.root / ".dockerenv").touch()
    with damaged(f"{board.kernel.layout.gpu}/of_node/name", DAMAGES["missing"]):
        said = diagnosis(board.root)
    assert (said["board"], said["l4t"], said["told_by"]) == ("orin-nano", "36.4.0", "the daemon")
    assert [axis["name"] for axis in said["axes"]] == ["cores", "cpu_khz", "gpu_hz", "mem_hz"]
    assert said["ok"] and said["notes"] == [
        "no GPU in this container: start it with --runtime nvidia"
    ]
    with FakeJetson(board.root) as device:
        assert (device.board.name, device.board.l4t) == ("orin-nano", "36.4.0")
        device.apply(device.space.minimum)
        assert board.mode() == device.space.minimum


@pytest.mark.parametrize(
    ("mark", "text"),
    [(".dockerenv", ""), ("proc/mounts", "sysfs /sys sysfs ro,nosuid,nodev,noexec 0 0\n")],
)
def test_a_container_without_it_is_told_the_options_that_are_missing(board, mark, text):
    """Docker marks its containers; of all that are not privileged /sys is read-only."""
    (board.root / FAKE_MARKER).unlink()
    in_a_container(board)
    (board.root / mark).write_text(text)
    (board.root / "dev").mkdir()
    (board.root / "dev/nvgpu").touch()
    (board.root / "sys/kernel/debug").rename(board.root / "no-debugfs")
    said = diagnosis(board.root)
    mends = {item["what"].partition(":")[0]: item["remedy"] for item in said["missing"]}
    assert "/run/powerctl:/run/powerctl" in mends["which board this is cannot be seen"]
    assert mends["the memory clock in /sys/kernel/debug cannot be reached"] == CONTAINER_OPTIONS
    assert not said["ok"] and not [note for note in said["notes"] if "GPU" in note]
    with pytest.raises(DeviceUnavailable, match="--board"):
        Jetson(board.root)


def test_a_container_without_the_daemons_group_is_told_the_option(board, serve, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    serve(board.root)
    monkeypatch.setattr("powerctl.daemon.remote.Daemon", refuse)
    with pytest.raises(DeviceUnavailable, match="usermod"):
        FakeJetson(board.root)
    (board.root / ".dockerenv").touch()
    with pytest.raises(DeviceUnavailable, match=r"may not use the daemon: .*--group-add") as error:
        FakeJetson(board.root)
    assert "usermod" not in str(error.value)
