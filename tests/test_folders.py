"""Where `wattfed` finds its folders: as links, in a FAB, and in checkouts without links."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BEHIND_LINKS = ("client", "server", "strategies")


@pytest.fixture
def tree(tmp_path) -> Path:
    """What a checkout has, but for what is in wattfed beside its own files."""
    (tmp_path / "wattfed").mkdir()
    for path in (*(ROOT / "wattfed").glob("*.py"), ROOT / "pyproject.toml"):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    for name in ("powerctl", *BEHIND_LINKS):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(tree, code, *arguments):
    """Run code with the tree first on the path."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )


def imported(tree):
    """What importing from each of the folders gives."""
    code = "import wattfed.client.gate, wattfed.server.cli, wattfed.strategies.target as target\n"
    return run(tree, code + "print(target.__file__)")


def test_through_links(tree):
    for name in BEHIND_LINKS:
        (tree / "wattfed" / name).symlink_to(f"../{name}")
    assert imported(tree).stdout.strip() == str(tree / "wattfed" / "strategies" / "target.py")


@pytest.mark.parametrize("left", ["nothing, as in a FAB", "texts, as git writes without links"])
def test_beside_it_where_there_are_no_links(tree, left):
    for name in BEHIND_LINKS if left.startswith("texts") else ():
        (tree / "wattfed" / name).write_text(f"../{name}")
    done = imported(tree)
    assert done.stdout.strip() == str(tree / "strategies" / "target.py"), done.stderr


LOOKS_WHILE_A_THREAD_IMPORTS = """
import importlib.util, sys, threading
thread = threading.Thread(target=lambda: __import__("wattfed"))
thread.start()
while "wattfed" not in sys.modules:
    pass
print(importlib.util.find_spec(sys.argv[1]).origin)
thread.join()
"""


def test_the_apps_are_found_in_a_fab_while_wattfed_is_being_imported(tree):
    init, own = (
        tree / "wattfed" / "__init__.py",
        tomllib.loads((ROOT / "pyproject.toml").read_text()),
    )
    init.write_text("__import__('time').sleep(0.5)\n" + init.read_text().replace("from __f", "# "))
    for component in own["tool"]["flwr"]["app"]["components"].values():
        module, _, _ = component.partition(":")
        done = run(tree, LOOKS_WHILE_A_THREAD_IMPORTS, module)
        path = tree.joinpath(*module.split(".")).with_suffix(".py")
        assert done.stdout.strip() == str(path), done.stderr


def test_what_was_built_without_links_says_so_and_takes_nobody_elses_folders(tree):
    (tree / "pyproject.toml").unlink()  # as in site-packages
    *_, line = imported(tree).stderr.splitlines()
    assert line.startswith("ImportError:") and "set core.symlinks" in line
