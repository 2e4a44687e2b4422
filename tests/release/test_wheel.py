"""The wheel as it is built: everything that the packages read, and its version."""

from __future__ import annotations

import subprocess
import zipfile
from importlib.metadata import version

from click.testing import CliRunner

from tests.release.conftest import ROOT, build
from wattfed.server.cli import cli

FOLDERS = {
    "powerctl": "powerctl",
    **{n: f"wattfed/{n}" for n in ("client", "server", "strategies")},
}


def test_all_files_of_the_packages_are_in_it_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    command = ["git", "ls-files", *FOLDERS]
    tracked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    folders = (name.partition("/")[::2] for name in tracked.split())
    assert {f"{FOLDERS[folder]}/{path}" for folder, path in folders} <= packed
    assert {"wattfed/__init__.py", "wattfed/py.typed"} <= packed
    assert {name.split("/")[0] for name in packed} == {"powerctl", "wattfed"}


def test_a_wheel_that_is_built_from_the_sdist_is_the_same(wheel, tmp_path):
    again, sdist = build(tmp_path)  # by default the sdist, and the wheel from it
    assert sdist.name.endswith(".tar.gz")
    one, other = (
        {entry.filename: entry.CRC for entry in zipfile.ZipFile(path).infolist()}
        for path in (wheel, again)
    )
    assert one == other


def test_the_version_is_that_of_the_project(wheel):
    assert wheel.name == f"wattfed-{version('wattfed')}-py3-none-any.whl"
    assert version("wattfed") in CliRunner().invoke(cli, ["--version"]).output
