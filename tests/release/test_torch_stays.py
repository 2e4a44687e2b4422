"""Installing wattfed never replaces a torch that is there: by pip, in the image, as documented."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from release.licences import needed
from tests.release.conftest import PIP, ROOT, SOURCES, metadata

pytestmark = pytest.mark.processes

NVIDIAS = "2.5.0a0+nv"
NEWER = "torch==2.13.0"  # what the index has, and its torchvision asks for


def stub(folder: Path, requirement: str, *requires: str) -> Path:
    """A wheel of a version of something, with nothing in it but what it requires."""
    name, version = requirement.split("==")
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        needs = [f"Requires-Dist: {text}" for text in requires]
        wheel.writestr(f"{info}/METADATA", "\n".join([*lines, *needs, ""]))
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def packed_again(folder: Path, name: str) -> None:
    """The wheel that an installed package of plain Python came from."""
    own = distribution(name)
    spelt = own.metadata["Name"].replace("-", "_")
    with zipfile.ZipFile(folder / f"{spelt}-{own.version}-py3-none-any.whl", "w") as wheel:
        for file in own.files:
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))


@pytest.fixture(scope="module")
def index(wheels, tmp_path_factory) -> Path:
    """All that wattfed needs, as stubs of pinned versions, with a newer torch; and hatchling."""
    folder = tmp_path_factory.mktemp("index")
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    asked = [Requirement(r) for wheel in wheels.values() for r in metadata(wheel).requires]
    for name in {r.name for r in asked} - {"powerctl", "torchvision"}:
        lowest = min((r.specifier for r in asked if r.name == name), key=str)
        version = pins.get(name) or re.sub(r"[^\d.]", "", str(lowest)) or "1"
        stub(folder, f"{name}=={version}")
    stub(folder, f"torchvision=={pins['torchvision']}", NEWER)
    for package in needed(["hatchling"]):
        packed_again(folder, package.name)
    for wheel in wheels.values():
        shutil.copy(wheel, folder)
    return folder


@pytest.fixture(autouse=True)
def only_the_index(monkeypatch):
    """Nothing of this machine's own pip."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.fixture
def venv(tmp_path) -> Path:
    """A fresh environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path / "venv"


def installing(venv: Path, index: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """What pip says of an installation that has only the index."""
    pip = [*PIP, "--python", str(venv), "install", "--no-index", "--find-links", str(index)]
    return subprocess.run([*pip, *what], capture_output=True, text=True)


def torches(folder: Path) -> set[str]:
    """The versions of torch that are installed below a folder."""
    found = (path.name for path in folder.rglob("torch-*.dist-info"))
    return {name.removeprefix("torch-").removesuffix(".dist-info") for name in found}


@pytest.mark.parametrize("version", ["2.4.0a0+07cecf4168.nv24.5", "2.99.0"])
def test_pip_keeps_the_torch_that_is_there(version, venv, index, tmp_path):
    assert not installing(venv, index, str(stub(tmp_path, f"torch=={version}"))).returncode
    done = installing(venv, index, "wattfed")
    assert not done.returncode, done.stdout + done.stderr
    assert len([*venv.rglob("wattfed-*.dist-info"), *venv.rglob("powerctl-*.dist-info")]) == 2
    assert torches(venv) == {version}


def test_torchvision_of_the_index_replaces_torch_unless_it_is_held(venv, index, tmp_path):
    """Why torchvision is an extra."""
    assert not installing(venv, index, str(stub(tmp_path, f"torch=={NVIDIAS}"))).returncode
    (held := tmp_path / "held.txt").write_text(f"torch=={NVIDIAS}\n")
    assert "conflict" in installing(venv, index, "-c", str(held), "wattfed[vision]").stderr
    assert torches(venv) == {NVIDIAS}
    installing(venv, index, "wattfed[vision]")
    assert f"torch=={torches(venv).pop()}" == NEWER


def base(folder: Path, index: Path, **more: str) -> dict[str, str]:
    """The process environment of a system whose Python has NVIDIA's torch."""
    system = folder / "system"
    pip = [*PIP, "install", "--quiet", "--no-deps", "--target", str(system)]
    subprocess.run([*pip, str(stub(folder, f"torch=={NVIDIAS}"))], check=True)
    asks = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PYTHONPATH": str(system)}
    return {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **asks, **more}


def run(commands: str, folder: Path, env: dict[str, str], cwd: Path) -> str:
    """Run commands as they stand, but for where the environment is made and whose pip it has."""
    venv = folder / "venv"
    (pip := folder / "pip").write_text(f'#!/bin/sh\nexec {" ".join(PIP)} --python {venv} "$@"\n')
    pip.chmod(0o755)
    here = commands.replace("/opt/wattfed/bin/pip", str(pip)).replace("/opt/wattfed", str(venv))
    here = here.replace("sudo ", "").replace("python3", sys.executable)
    here = here.replace("-m venv", "-m venv --without-pip")  # which takes seconds to be unpacked
    done = subprocess.run(["sh", "-ec", here], capture_output=True, text=True, cwd=cwd, env=env)
    return done.stdout + done.stderr


def image_commands() -> str:
    """What docker/client.Dockerfile runs to install wattfed."""
    text = (ROOT / "docker" / "client.Dockerfile").read_text()
    (commands,) = re.findall(r"(?ms)^RUN (python3 -m venv.*?[^\\])$", text)
    return commands.replace("\\\n", "")


@pytest.fixture
def source(tmp_path) -> Path:
    """What an image is built from."""
    command = ["git", "ls-files", "--cached", *SOURCES, "release", "docker", "client", "server"]
    command += ["strategies", "*.toml", "*.txt", "README.md", "LICENSE"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).split():
        to = tmp_path / "src" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to, follow_symlinks=False)
    return tmp_path / "src"


def test_the_image_holds_the_torch_of_its_base(source, index, tmp_path):
    env = base(tmp_path, index, TORCH="base", CONSTRAINTS="constraints.txt", PIP_OPTIONS="")
    said = run(image_commands(), tmp_path, env, source)
    assert list((tmp_path / "venv").rglob("wattfed-*.dist-info")), said
    assert not torches(tmp_path / "venv"), said
    assert f"torch=={NVIDIAS}" in (source / "held.txt").read_text().splitlines()


def test_an_image_of_a_base_without_torch_says_so(source, index, tmp_path):
    env = base(tmp_path, index, TORCH="base", CONSTRAINTS="constraints.txt", PIP_OPTIONS="")
    said = run(image_commands(), tmp_path, env | {"PYTHONPATH": ""}, source)
    assert said.endswith("TORCH=base, but there is no torch in BASE\n")


def test_the_documented_installation_holds_the_torch_that_is_there(index, wheels, tmp_path):
    text = (ROOT / "docs" / "launch.md").read_text()
    section = text.partition("## Every host: install")[2].partition("\n## ")[0]
    commands = [line for line in re.findall(r"(?m)^    (.*)", section) if "useradd" not in line]
    for wheel in wheels.values():
        shutil.copy(wheel, tmp_path)
    said = run("\n".join(commands), tmp_path, base(tmp_path, index), tmp_path)
    assert list((tmp_path / "venv").rglob("wattfed-*.dist-info")), said
    assert not torches(tmp_path / "venv"), said
    assert (tmp_path / "venv" / "held.txt").read_text() == f"torch=={NVIDIAS}\n"
