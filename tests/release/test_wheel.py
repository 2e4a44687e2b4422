"""The wheels as they are built: everything that the packages read, and one version."""

from __future__ import annotations

import re
import subprocess
import zipfile
from importlib.metadata import version

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from tests.release.conftest import ROOT, SOURCES, build, metadata
from wattfed.server.cli import cli

pytestmark = pytest.mark.processes

FOLDERS = {
    "powerctl": {"powerctl": "powerctl"},
    "wattfed": {name: f"wattfed/{name}" for name in ("client", "server", "strategies")},
}


@pytest.mark.parametrize("name", SOURCES)
def test_all_files_of_the_packages_are_in_it_and_nothing_else(name, wheels):
    files = zipfile.ZipFile(wheels[name]).namelist()
    packed = {file for file in files if ".dist-info/" not in file}
    command = ["git", "ls-files", *FOLDERS[name]]
    tracked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    folders = (file.partition("/")[::2] for file in tracked.split())
    assert {f"{FOLDERS[name][folder]}/{path}" for folder, path in folders} <= packed
    assert {f"{name}/__init__.py", f"{name}/py.typed"} <= packed
    assert {file.split("/")[0] for file in packed} == {name}


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_that_is_built_from_the_sdist_is_the_same(name, wheels, tmp_path):
    # by default the sdist, and the wheel from it
    again, sdist = build(SOURCES[name], tmp_path)
    assert sdist.name.endswith(".tar.gz")
    one, other = (
        {entry.filename: entry.CRC for entry in zipfile.ZipFile(path).infolist()}
        for path in (wheels[name], again)
    )
    assert one == other


def test_the_version_of_both_is_that_of_the_project(wheels):
    for name, wheel in wheels.items():
        assert wheel.name == f"{name}-{version('wattfed')}-py3-none-any.whl"
    assert version("wattfed") in CliRunner().invoke(cli, ["--version"]).output


def test_wattfed_needs_the_powerctl_of_its_tree_and_that_needs_no_torch_and_no_flower(wheels):
    wattfed, powerctl = (
        {r.name: r for r in map(Requirement, metadata(wheels[name]).requires) if not r.marker}
        for name in ("wattfed", "powerctl")
    )
    assert str(wattfed["powerctl"].specifier) == f"=={metadata(wheels['powerctl']).version}"
    assert {"torch", "flwr"} <= set(wattfed) and "torchvision" not in wattfed
    assert not {"torch", "torchvision", "flwr", "grpcio"} & set(powerctl)


def test_every_extra_that_is_named_anywhere_is_one(wheels):
    extras = {n: metadata(w).metadata.get_all("Provides-Extra") for n, w in wheels.items()}
    files = subprocess.check_output(["git", "ls-files"], text=True, cwd=ROOT).split()
    text = "".join((ROOT / f).read_text() for f in files if f.endswith((".py", ".md", ".toml")))
    named = set(re.findall(r"\b(wattfed|powerctl)\[([a-z]+)\]", text))
    assert ("wattfed", "vision") in named
    assert {extra for extra in named if extra[1] not in extras[extra[0]]} == set()


def test_both_are_under_the_same_licence():
    texts = {(folder / "LICENSE").read_text() for folder in SOURCES.values()}
    assert len(texts) == 1
