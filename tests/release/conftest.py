"""The wheel, built from this tree as a release is, and installed in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(out: Path, *what: str) -> list[Path]:
    """Build this tree; what that gives, by name."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Built from the tree."""
    (path,) = build(tmp_path_factory.mktemp("wheel"), "--wheel")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder for PYTHONPATH that holds what the wheel installs, ahead of a checkout's."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(folder), str(wheel)], check=True)
    return folder
