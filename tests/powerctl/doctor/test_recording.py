"""A recorded board is as good as the board to all that looks, and nothing can be done to it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import pytest
from click.testing import CliRunner

from powerctl.commands.jetson_board import doctor, nvpmodel
from powerctl.commands.profile import profile_command
from powerctl.devices.fake_jetson import FakeJetson
from powerctl.devices.opening import open_device
from powerctl.devices.roots import open_sysfs
from powerctl.errors import DeviceUnavailable, InvalidInput, PowerctlError
from powerctl.fakes.layout import FAKE_MARKER
from powerctl.jetson.recording import NOTE
from powerctl.jetson.throttling import read_throttling
from tests.powerctl.doctor.torches import quick_torch  # noqa: F401, fixture
from tests.powerctl.jetson import thor
from tests.powerctl.jetson.conftest import board, fake, folder  # noqa: F401, fixtures

pytestmark = pytest.mark.usefixtures("quick_torch")

PERSONAL = "anna-secret"


def run(command, *arguments, exit_code=0):
    done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


def recorded(root, tmp_path):
    file = tmp_path / "board.tar"
    run(doctor, "--root", root, "--record", file)
    return file


def plain(made):
    """The files of a fake board without the kernel that is behind them."""
    (made.root / FAKE_MARKER).unlink()
    return made.root


def diagnosis(root):
    said = json.loads(CliRunner().invoke(doctor, ["--root", str(root), "--json"]).stdout)
    for floating in ("torch", "ok", "missing", "axes", "daemon"):  # nobody may write a recording
        said.pop(floating)
    return said


def test_every_board_is_the_same_to_the_doctor_and_to_a_device(board, tmp_path):  # noqa: F811
    with FakeJetson(board.root) as device:
        modes, mode, watts = device.space.axes, device.mode(), device.power.total_w()
    root = plain(board)
    file = recorded(root, tmp_path)
    assert diagnosis(file) == diagnosis(root)
    with open_device(f"recorded:{file}") as device:
        assert (device.space.axes, device.mode()) == (modes, mode)
        assert device.power.total_w() == watts
        assert device.excess_c() < 0 and device.watch_throttling()() == ""
    assert read_throttling(open_sysfs(file)) == read_throttling(open_sysfs(root))


def test_a_thor_is_recorded_by_its_links_too(folder, tmp_path):  # noqa: F811
    file = recorded(thor.make_thor(folder / "thor"), tmp_path)
    with open_device(f"recorded:{file}") as device:
        assert device.board.name == "agx-thor-t5000" and device.power.labels == ("VIN",)


def test_nothing_is_set_run_or_switched_on_a_recording(fake, tmp_path):  # noqa: F811
    file = recorded(fake("orin-nano", "6").root, tmp_path)
    before = file.read_bytes()
    with open_device(f"recorded:{file}") as device:
        with pytest.raises(DeviceUnavailable, match="only looked at"):
            device.apply(device.space.minimum)
        with pytest.raises(DeviceUnavailable, match="only looked at"):
            device.execute(None, lambda: None)
        with pytest.raises(OSError, match="only looked at"):
            device.sysfs.write("sys/devices/system/cpu/cpu1/online", 0)
    command = ["--device", f"recorded:{file}", "--modes", "3", "--out", str(tmp_path / "log.jsonl")]
    refused = CliRunner().invoke(profile_command, command).exception
    assert isinstance(refused, (DeviceUnavailable, InvalidInput, SystemExit))
    refused = CliRunner().invoke(nvpmodel, ["MAXN_SUPER", "--root", str(file)]).exception
    assert isinstance(refused, PowerctlError)
    assert file.read_bytes() == before


def test_its_files_go_with_it(fake, tmp_path):  # noqa: F811
    sysfs = open_sysfs(recorded(fake("orin-nano", "6").root, tmp_path))
    folder_of_it = sysfs.root
    assert folder_of_it.is_dir()
    sysfs = None
    assert not folder_of_it.exists()


def test_what_could_not_be_read_cannot_be_read_in_it_either(fake, tmp_path, monkeypatch):  # noqa: F811
    root = plain(fake("orin-agx", "5.1"))
    sensor = next(root.glob("sys/bus/i2c/devices/1-0040/hwmon/*/curr1_input"))
    sensor.unlink()
    sensor.symlink_to("/proc/self/mem")  # reading it from its start is EIO
    before = diagnosis(root)
    file = recorded(root, tmp_path)
    assert "VDD_GPU_SOC" not in before["rails"]
    assert diagnosis(file)["rails"] == before["rails"]


def test_a_container_is_recorded_with_its_dead_device_tree(fake, tmp_path):  # noqa: F811
    root = plain(fake())
    shutil.rmtree(root / "proc/device-tree")
    (root / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    file = recorded(root, tmp_path)
    assert not open_sysfs(file).exists("proc/device-tree")
    with pytest.raises(DeviceUnavailable, match="which board this is"):
        open_device(f"recorded:{file}")
    assert open_device(f"recorded:{file}", board="orin-agx").board.name == "orin-agx"


def test_nothing_of_its_owner_is_in_it(fake, tmp_path):  # noqa: F811
    made = fake("orin-nx", "6")
    root = plain(made)
    (root / "proc/device-tree/nvidia,dtsfilename").write_text(f"/home/{PERSONAL}/tegra.dts\0")
    (root / "proc/device-tree/serial-number").write_text(f"{PERSONAL}\0")
    (root / "proc/mounts").write_text(f"/dev/sda1 /media/{PERSONAL} ext4 rw 0 0\n")
    conf = root / "etc/nvpmodel.conf"
    conf.write_text(conf.read_text().replace("< PM_CONFIG", f"# {PERSONAL}\n< PM_CONFIG"))
    file = recorded(root, tmp_path)
    assert PERSONAL.encode() not in file.read_bytes()
    assert str(root).encode() not in file.read_bytes()
    with tarfile.open(file) as tar:
        assert {(m.uid, m.gid, m.uname, m.mtime) for m in tar} == {(0, 0, "", 0)}
        names = [member.name for member in tar]
    assert not [n for n in names if n.startswith(("home", "run", "var/lib/powerctl", "proc/sys"))]
    assert open_sysfs(file).exists("etc/nvpmodel.conf")


def tar_of(tmp_path, *members):
    """A tar of members: name, type, and content or target."""
    file = tmp_path / "other.tar"
    with tarfile.open(file, "w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, 0 if kind == tarfile.SYMTYPE else len(content)
            member.linkname = content if kind == tarfile.SYMTYPE else ""
            data = b"" if kind == tarfile.SYMTYPE else content.encode()
            tar.addfile(member, io.BytesIO(data))
    return file


GOOD = (NOTE, tarfile.REGTYPE, '{"format": "powerctl-recording", "errors": {}}')
FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "not a recording"),
        ([(NOTE, FILE, "{}")], "not a recording"),
        ([(NOTE, FILE, '{"format": "powerctl-recording", "errors": {"a": "b"}}')], "errors"),
        ([GOOD, ("../evil", FILE, "x")], "outside"),
        ([GOOD, ("/evil", FILE, "x")], "outside"),
        ([GOOD, ("sys/link", LINK, "../../evil")], "outside"),
        ([GOOD, ("sys/link", LINK, "/etc")], "outside"),
        ([GOOD, ("a", LINK, "."), ("a/b", LINK, "..")], "behind a link"),
        ([GOOD, ("a", LINK, "b"), ("a/b", FILE, "x")], "behind a link"),
        ([GOOD, ("pipe", tarfile.FIFOTYPE, "")], "neither a file"),
    ],
)
def test_what_is_no_recording_is_refused_and_writes_nothing_elsewhere(tmp_path, members, why):
    file = tar_of(tmp_path, *members)
    with pytest.raises(InvalidInput, match=why) as refused:
        open_device(f"recorded:{file}")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("content", [b"", b"no tar", b"\x1f\x8b compressed", b"x" * 4096])
def test_files_that_are_no_tar_are_refused(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"x\.tar: not a recording"):
        open_device(f"recorded:{tmp_path / 'x.tar'}")
    with pytest.raises(InvalidInput, match="no such file"):
        open_device(f"recorded:{tmp_path / 'nothing.tar'}")
