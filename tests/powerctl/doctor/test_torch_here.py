"""Which torch there is, and what the doctor says of it."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from click.testing import CliRunner

from powerctl.commands.jetson_board import doctor
from powerctl.doctor.torch_here import look_at_torch
from powerctl.reading import read_toml
from tests.powerctl.doctor.torches import write_module, write_torch, write_torchvision

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]
KNOWN = read_toml(ROOT / "powerctl" / "doctor" / "torch.toml")
JETPACK_6 = KNOWN["remedies"]["6"]


@pytest.fixture
def folder_of_torch(tmp_path, monkeypatch):
    """Where another process of this Python finds modules first."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def torch_of(folder_of_torch):
    """What is found of a torch and a torchvision that are there."""

    def look(jetpack="6", vision="0.20.0a0+nv", **torch):
        write_torch(folder_of_torch, **torch)
        write_torchvision(folder_of_torch, vision)
        return look_at_torch(jetpack)

    return look


def test_a_torch_that_suits_the_board_is_told_and_nothing_is_amiss(torch_of, tmp_path):
    here = torch_of()
    assert (here.version, here.cuda, here.gpu) == ("2.5.0a0+nv", "12.6", "Orin")
    assert here.file == str(tmp_path / "torch" / "__init__.py")
    assert here.torchvision == "0.20.0a0+nv" and not here.missing


@pytest.mark.parametrize(
    ("made", "what", "remedy"),
    [
        ({"version": "2.3.0"}, "torch 2.3.0 is older than 2.4", JETPACK_6),
        ({"cuda": None, "gpu": None}, "was built without CUDA", JETPACK_6),
        ({"gpu": None}, "sees no GPU: Found no NVIDIA driver on your system", "--runtime nvidia"),
        ({"numpy": False}, "no arrays with this NumPy: Numpy is not available", "'numpy<2'"),
        ({"vision": "0.28.0"}, "torchvision 0.28.0 beside torch 2.5.0a0+nv: 0.20", JETPACK_6),
    ],
)
def test_what_does_not_suit_is_named_with_its_remedy(made, what, remedy, torch_of):
    (missing,) = torch_of(**made).missing
    assert what in missing.what and remedy in missing.remedy


def test_a_torch_that_no_table_knows_is_not_judged(torch_of):
    assert not torch_of(version="2.99.0", vision="0.77").missing


def test_a_machine_that_is_no_jetson_needs_no_gpu(torch_of):
    assert not torch_of(jetpack=None, cuda=None, gpu=None).missing


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import os; os.abort()", "its import ends the process with -6"),
        ("raise ImportError('libcudart.so.12: cannot open')", "libcudart.so.12: cannot open"),
        ("import no_such_part", "No module named 'no_such_part'"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_told(text, why, folder_of_torch):
    write_module(folder_of_torch, "torch", text)
    here = look_at_torch("6")
    assert here.version is None
    assert here.missing[0].what.endswith(f"with torch: {why}")


def test_a_torch_whose_import_does_not_end_is_told(folder_of_torch):
    write_module(folder_of_torch, "torch", "import time; time.sleep(600)")
    (missing,) = look_at_torch("6", limit_s=0.5).missing
    assert missing.what.endswith("its import takes more than 0.5 s")


def test_a_torchvision_that_does_not_load_is_told(folder_of_torch):
    write_torch(folder_of_torch)
    lacks = "operator torchvision::nms does not exist"
    write_module(folder_of_torch, "torchvision", f"raise RuntimeError({lacks!r})")
    (missing,) = look_at_torch("6").missing
    assert missing.what == f"torchvision does not load beside torch 2.5.0a0+nv: {lacks}"


def test_a_file_of_the_folder_that_one_is_in_is_not_run(tmp_path, monkeypatch):
    """The doctor may be run as root."""
    (tmp_path / "torch.py").write_text("__version__ = 'of the folder'")
    monkeypatch.chdir(tmp_path)
    assert look_at_torch(None).version == installed("torch")


@pytest.mark.parametrize("jetpack", ["4", "5.1", "6"])
def test_the_doctor_gives_the_remedy_of_the_boards_jetpack(jetpack, fake, torch_of):
    board = fake("xavier-nx" if jetpack < "6" else "orin-nano", jetpack)
    torch_of(cuda=None, gpu=None)
    said = CliRunner().invoke(doctor, ["--root", str(board.root)])
    assert said.exit_code == 0, "a board is set without torch"
    assert "torch 2.5.0a0+nv of " in said.stdout and "built without CUDA" in said.stdout
    assert KNOWN["remedies"][jetpack[0]] in said.stdout


def test_jetpack_7_has_a_remedy_and_each_names_its_source(torch_of):
    (missing,) = torch_of(jetpack="7.0", cuda=None, gpu=None).missing
    assert missing.remedy == KNOWN["remedies"]["7"]
    assert all("https://" in remedy for remedy in KNOWN["remedies"].values())


def test_the_oldest_torch_is_that_of_the_project():
    asks = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'"torch>=([\d.]+)\.0a0"', asks)[1] == KNOWN["oldest"]
