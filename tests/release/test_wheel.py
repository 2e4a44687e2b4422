"""The wheel as it is built: everything that the packages read, and its version."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from wattfed.server.cli import cli

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "powerctl": "powerctl",
    **{n: f"wattfed/{n}" for n in ("client", "server", "strategies")},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    return path


def test_all_files_of_the_packages_are_in_it_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    command = ["git", "ls-files", *FOLDERS]
    tracked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    folders = (name.partition("/")[::2] for name in tracked.split())
    assert {f"{FOLDERS[folder]}/{path}" for folder, path in folders} <= packed
    assert {"wattfed/__init__.py", "wattfed/py.typed"} <= packed
    assert {name.split("/")[0] for name in packed} == {"powerctl", "wattfed"}


def test_the_version_is_that_of_the_project(wheel):
    assert wheel.name == f"wattfed-{version('wattfed')}-py3-none-any.whl"
    assert version("wattfed") in CliRunner().invoke(cli, ["--version"]).output
