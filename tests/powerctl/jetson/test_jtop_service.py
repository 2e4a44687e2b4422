"""The real service of jetson-stats, in its testing mode, on a fake board: both read the same.

The service has fixed places (/fake_sys, /run/jtop.sock, the group jtop), so it runs in a mount
namespace of its own, where they are made without touching this machine's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from powerctl.jetson.nvpmodel import read_configuration, running_preset
from powerctl.jetson.rails import RailPower
from tests.powerctl.jetson.conftest import watts
from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]

# What NVIDIA's program prints, from the board's own files.
NVPMODEL = r"""#!/bin/sh
conf=$BOARD/etc/nvpmodel.conf
if [ "$1" = -q ]; then
    id=$(sed 's/pmode:0*\([0-9]\)/\1/' "$BOARD/var/lib/nvpmodel/status")
    sed -n "s/^< POWER_MODEL ID=$id NAME=\(.*\) >/NV Power Mode: \1/p" "$conf"
    echo "$id"
else
    sed -n 's/^< POWER_MODEL \(.*\) >/POWER_MODEL: \1/p; /^TPC_POWER_GATING TPC/p' "$conf"
    default=$(sed -n 's/^< PM_CONFIG DEFAULT=\([0-9]*\) >/\1/p' "$conf")
    sed -n "s/^< POWER_MODEL ID=$default NAME=\(.*\) >/PM_CONFIG: DEFAULT=\1($default)/p" "$conf"
fi
"""

# Another root whose folders are this machine's, but for /run, /fake_sys, the group
# jtop, and what a virtual machine may lack (/sys/devices/virtual/dmi).
NAMESPACE = r"""set -e
mount -t tmpfs none "$NEW_ROOT"
for path in /*; do
    if [ -L "$path" ]; then cp -P "$path" "$NEW_ROOT$path"
    elif [ "$path" != /run ] && [ "$path" != /fake_sys ] && [ -d "$path" ]; then
        mkdir "$NEW_ROOT$path" && mount --rbind "$path" "$NEW_ROOT$path"
    fi
done
mkdir "$NEW_ROOT/run" "$NEW_ROOT/fake_sys"
mount --rbind "$BOARD/sys" "$NEW_ROOT/fake_sys"
mount -t tmpfs none "$NEW_ROOT/sys/devices/virtual"
mkdir -p "$NEW_ROOT/sys/devices/virtual/dmi/id"
mount --bind "$GROUPS_FILE" "$NEW_ROOT/etc/group"
exec chroot "$NEW_ROOT" "$@"
"""

BOTH = r"""
import json, os, subprocess, sys, time
from powerctl.jetson.rails import JtopPower

service = subprocess.Popen(
    [sys.executable, "-m", "jtop", "--force"],
    env={**os.environ, "JTOP_SERVICE": "True", "JTOP_TESTING": "True"},
    stdout=sys.stderr,
)
try:
    while not os.path.exists("/run/jtop.sock"):
        assert service.poll() is None, "the service has ended"
        time.sleep(0.02)
    jtop = JtopPower()
    power, nvpmodel = jtop._client.power, jtop._client.nvpmodel
    rails = {name: rail["power"] / 1000 for name, rail in power["rail"].items()}
    if "name" in power["tot"]:
        rails[power["tot"]["name"]] = power["tot"]["power"] / 1000
    preset = None if nvpmodel is None else str(nvpmodel.name)
    said = {"rails": rails, "total_w": jtop.total_w(), "preset": preset}
    said["presets"] = jtop._client.nvpmodel.models
    jtop.close()
    print(json.dumps(said))
finally:
    service.terminate()
    service.wait()
"""


@pytest.fixture(scope="module")
def jetson_stats(tmp_path_factory):
    """A folder of its own with jetson-stats, or skip with the reason."""
    folder = tmp_path_factory.mktemp("jetson-stats")
    # Never from source: built by root, it installs its service on this machine.
    pip = ["pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    done = subprocess.run(
        [sys.executable, "-m", *pip, "--target", folder, "jetson-stats>=4.2"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"jetson-stats cannot be installed: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def inside(tmp_path):
    """Run something in a namespace where a board is /fake_sys, or skip with the reason."""
    unshare = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user"))]
    try:
        tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if tried.returncode:
        pytest.skip(f"no mount namespace for this user: {tried.stderr.strip()}")
    (tmp_path / "root").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvpmodel").write_text(NVPMODEL)
    (tmp_path / "bin/nvpmodel").chmod(0o755)
    groups = Path("/etc/group").read_text() + "jtop:x:0:\n"
    (tmp_path / "group").write_text(groups)

    def run(board, packages):
        cores = ("", *range(len(board.kernel.state.online)))
        (board.root / "sys/stat").write_text(
            "".join(f"cpu{n} 9 0 9 9 9 0 9 0 0 0\n" for n in cores)
        )
        environment = {
            "NEW_ROOT": tmp_path / "root",
            "BOARD": board.root,
            "GROUPS_FILE": tmp_path / "group",
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{packages}",
        }
        done = subprocess.run(
            [*unshare, "sh", "-c", NAMESPACE, "sh", sys.executable, "-c", BOTH],
            env={name: str(value) for name, value in environment.items()},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.parametrize(("name", "jetpack"), [("orin-agx", "5.1"), ("xavier-nx", "4")])
def test_jtop_and_this_read_the_same_rails_total_and_preset(
    fake, inside, jetson_stats, name, jetpack
):
    board = fake(name, jetpack)
    board.set_power(23.4)
    said, own = inside(board, jetson_stats), RailPower(board, "jtop")
    assert said["rails"] == pytest.approx(watts(board), abs=0.0011), "whole milliwatts"
    assert said["total_w"] == pytest.approx(own.total_w(), abs=0.0011 * len(own.labels))
    configuration = read_configuration(board)
    assert said["presets"] == [preset.name for preset in configuration.presets]
    assert said["preset"] == configuration.preset(str(running_preset(board))).name
