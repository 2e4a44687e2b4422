"""Both wheels, built from this tree as a release is, and places where they are installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest

from release.licences import needed

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"powerctl": ROOT / "release" / "powerctl", "wattfed": ROOT}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build(source: Path, out: Path, *what: str) -> list[Path]:
    """Build a distribution; what that gives, by name."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


def metadata(wheel: Path) -> Distribution:
    """What a wheel says of itself."""
    (folder,) = (f for f in zipfile.Path(wheel).iterdir() if f.name.endswith(".dist-info"))
    return PathDistribution(folder)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """Built from the tree, by name of the distribution."""
    out = tmp_path_factory.mktemp("wheels")
    return {name: build(source, out / name, "--wheel")[0] for name, source in SOURCES.items()}


@pytest.fixture(scope="session")
def installed(wheels, tmp_path_factory) -> Path:
    """A folder for PYTHONPATH that holds what the wheels install, ahead of a checkout's."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [*PIP, "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *wheels.values()], check=True)
    return folder


@pytest.fixture(scope="session")
def board(wheels, tmp_path_factory) -> Path:
    """The commands of an environment that has powerctl, what it says it needs, and nothing else."""
    venv = tmp_path_factory.mktemp("board")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    for package in needed(metadata(wheels["powerctl"]).requires):
        own = distribution(package.name)
        for name in {file.parts[0] for file in own.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(own.locate_file(name))
    pip = [*PIP, "--python", str(venv), "install", "--quiet", "--no-index"]
    subprocess.run([*pip, str(wheels["powerctl"])], check=True)  # fails if something is wanting
    return venv / "bin"
