"""Packages that tell of themselves as torch and torchvision do, for a process to find."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_TORCH = """
__version__ = {version!r}
class version:
    cuda = {cuda!r}
class cuda:
    def get_device_name():
        if {gpu!r} is None:
            raise RuntimeError("Found no NVIDIA driver\\non your system")
        return {gpu!r}
class zeros:
    dtype = "float32"
    def __init__(self, n):
        pass
    def numpy(self):
        if not {numpy}:
            raise RuntimeError("Numpy is not available")
        return self
"""


def write_module(folder: Path, name: str, text: str) -> None:
    """A package of one file, for PYTHONPATH."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(text)


def write_torch(folder: Path, version="2.5.0a0+nv", cuda="12.6", gpu="Orin", numpy=True) -> None:
    """NVIDIA's torch for JetPack 6, or another."""
    text = _TORCH.format(version=version, cuda=cuda, gpu=gpu, numpy=numpy)
    write_module(folder, "torch", text)


def write_torchvision(folder: Path, version="0.20.0a0+nv") -> None:
    """The torchvision that belongs to it, or another."""
    write_module(folder, "torchvision", f"__version__ = {version!r}\n")


@pytest.fixture
def quick_torch(tmp_path, monkeypatch):
    """A torch that is imported at once: for tests of what else the doctor says."""
    write_torch(tmp_path / "torch")
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path / "torch"), before)))
    )
