"""What travels to the nodes of a cluster: our code as it is here, and the user's own files."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import pytest

from powerctl.workload import load_workload, write_workload
from wattfed.server.engines.node_code import differences, on_nodes, versions, write_archive
from wattfed.strategies.code_version import files_hash
from wattfed.strategies.run_config import RunConfig


@pytest.fixture
def config(tmp_path):
    """A run of a task in a package, with a workload and data of its own."""
    package = tmp_path / "mine" / "archived"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "unused.py").touch()
    (package / "parts.py").write_text(
        "from torch import nn\n\n\ndef make_model():\n    return nn.Linear(1, 1)\n"
    )
    (tmp_path / "mine" / "task.py").write_text(
        "from archived.parts import make_model\n\n\n"
        "def load_data(partition_id):\n    return []\n\n\n"
        "def train_step(model, batch, optimizer):\n    pass\n\n\n"
        "def test(net, testloader):\n    return {}\n"
    )
    write_workload(load_workload("resnet18-train"), tmp_path / "heavy.toml")
    return RunConfig(
        task=str(tmp_path / "mine" / "task.py"),
        workload=str(tmp_path / "heavy.toml"),
        data_dir="data",
    )


def names(path):
    with zipfile.ZipFile(path) as archive:
        return {*archive.namelist()}


def test_the_archive_has_our_code_and_the_files_that_a_run_names(config, tmp_path):
    write_archive(tmp_path / "code.zip", config)
    found = names(tmp_path / "code.zip")
    assert {"task.py", "archived/__init__.py", "archived/parts.py", "heavy.toml"} < found
    assert {"wattfed/__init__.py", "wattfed/client/app.py", "powerctl/boards/orin-nx.toml"} < found
    assert not any("unused" in name or name.endswith((".pyc", ".html.j2")) for name in found)
    there = on_nodes(config)
    assert (there.task, there.workload) == ("task.py", "heavy.toml")
    assert there.data_dir.endswith("/data") and there.data_dir.startswith("/")


def test_equal_files_are_an_equal_archive(config, tmp_path):
    for name in ("one", "two"):
        write_archive(tmp_path / name, config)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_task_of_ours_adds_nothing(tmp_path):
    write_archive(tmp_path / "ours", RunConfig())
    assert {name.partition("/")[0] for name in names(tmp_path / "ours")} == {"powerctl", "wattfed"}
    assert on_nodes(RunConfig()) == RunConfig()


def test_another_version_of_code_or_library_is_named(config):
    here = versions(config)
    assert here["wattfed"] == files_hash() and len(here["the task"]) == 64
    assert not differences(here, versions(replace(config, seed=1)))
    assert (
        differences(here, {**here, "numpy": "1.0"})
        == f"numpy is 1.0 there and {here['numpy']} here"
    )
