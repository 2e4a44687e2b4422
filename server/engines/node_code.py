"""What nodes of a cluster need of this machine: its code, and a way to tell whether they run it.

One archive has wattfed and powerctl as they are here, the files of a user's own task, and the file
of the workload that a run is charged as. Data sets, and libraries, are on the nodes already.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from powerctl.plugins import load_module, parsed
from powerctl.task.source_files import sources_of
from wattfed.client.tasks.federated import is_installed
from wattfed.server.run.federation import task_of
from wattfed.strategies.code_version import files_hash
from wattfed.strategies.run_config import RunConfig

_OURS = ("powerctl", "wattfed.client", "wattfed.server", "wattfed.strategies")
_KINDS = (".py", ".toml")
_LIBRARIES = {"site-packages", "dist-packages"}  # nodes have theirs
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that the same files are the same archive


def on_nodes(config: RunConfig) -> RunConfig:
    """The configuration as it holds in the folder of the archive, with the files that it names."""
    task, workload = config.task, config.workload
    if (own := _own_module(task)).endswith(".py"):
        task = task.replace(own, Path(own).name, 1)
    if workload.endswith(".toml"):
        workload = Path(workload).name
    data_dir = config.data_dir and os.path.abspath(config.data_dir)
    return replace(config, task=task, workload=workload, data_dir=data_dir)


def write_archive(path: Path, config: RunConfig) -> None:
    """Write what a run's nodes need; its content, and so its hash, depends on the files alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(_files(config).items()):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), file.read_bytes())


def versions(config: RunConfig) -> dict[str, str]:
    """What a process computes with: on all nodes the same, or their sums may not be."""
    return {
        "wattfed": files_hash(),
        "the task": task_of(config).code_hash,
        "torch": torch.__version__.partition("+")[0],  # of one version, for CPUs or for GPUs
        "numpy": np.__version__,
    }


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What a node has in another version, in words; empty if nothing."""
    return ", ".join(
        f"{what} is {there[what]} there and {version} here"
        for what, version in here.items()
        if there[what] != version
    )


def _files(config: RunConfig) -> dict[str, Path]:
    """All files by their name in the archive."""
    found = {f"wattfed/{path.name}": path for path in _folder_of("wattfed").glob("*.py")}
    for package in _OURS:
        name, folder = package.replace(".", "/"), _folder_of(package)
        for path in folder.rglob("*"):
            if path.suffix in _KINDS:
                found[f"{name}/{path.relative_to(folder).as_posix()}"] = path
    if config.workload.endswith(".toml"):
        found[Path(config.workload).name] = Path(config.workload)
    return found | dict(_files_of_task(config.task))


def _folder_of(package: str) -> Path:
    return Path(str(importlib.import_module(package).__file__)).parent


def _own_module(task: str) -> str:
    """File or module of a task of the user's own; empty for others."""
    if is_installed(task):
        return ""
    name, _ = parsed("task", task)
    return name.rpartition(":")[0] or name


def _files_of_task(task: str) -> Iterator[tuple[str, Path]]:
    """The files of a task, and of the packages that they are in, by their name in its folder."""
    if not (own := _own_module(task)):
        return
    for name, path in sources_of(load_module(own)).items():
        if _LIBRARIES.isdisjoint(path.parts):
            yield name, path
            for above in Path(name).parents[:-1]:
                package = path.parents[len(Path(name).parts) - 1] / above / "__init__.py"
                if package.is_file():
                    yield (above / "__init__.py").as_posix(), package
