from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from powerctl.errors import InvalidInput
from wattfed.strategies.code_version import check_code_version, code_hash, code_version

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_code_is_accepted_and_other_code_named_with_its_folder():
    check_code_version(code_version())
    with pytest.raises(InvalidInput, match="server runs 0123.*start it in the folder of the app"):
        check_code_version("0123")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """Another checkout, whose files can be edited."""
    for name in ("client", "strategies", "powerctl"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "wattfed").mkdir()
    for name in ("wattfed/__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def check_there(checkout: Path, version: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from wattfed.strategies.code_version import check_code_version\n"
        "check_code_version(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, version]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True)


def test_an_edited_comment_or_docstring_is_the_same_code(checkout):
    module = checkout / "client" / "gate.py"
    text = module.read_text()
    assert text.startswith('"""The gate:')
    module.write_text(text.replace("The gate:", "A gate:", 1) + "\n# a comment\n")
    assert check_there(checkout, code_version()).returncode == 0


def test_an_edited_number_is_other_code(checkout):
    module = checkout / "powerctl" / "fulcrum" / "plans.py"
    text = module.read_text()
    assert "SWITCH_S = 0.2" in text
    module.write_text(text.replace("SWITCH_S = 0.2", "SWITCH_S = 0.3"))
    done = check_there(checkout, code_version())
    assert done.returncode != 0 and f"from {checkout}" in done.stderr


def test_what_is_kept_of_other_files_or_damaged_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    find = code_hash.__wrapped__  # what every process does once
    code, kept = find(), tmp_path / "home" / "code-version"
    assert kept.read_text() == code_version()
    for damaged in ("", "0123-0123456789ab", f"{code_version()[:-1]}", "\xff"):
        kept.write_text(damaged, encoding="latin-1")
        assert find() == code
        assert kept.read_text() == code_version()


@pytest.mark.parametrize("missing", ["taken", "nobody's"])
def test_without_a_home_it_is_found_all_the_same(tmp_path, monkeypatch, missing):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("POWERCTL_HOME")
    monkeypatch.setattr(os, "getuid", lambda: 10_001)  # as in a container
    if missing == "taken":
        (tmp_path / "home").touch()
        monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    assert code_hash.__wrapped__() == code_hash()
