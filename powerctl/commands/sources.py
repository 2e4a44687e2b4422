"""What `powerctl solve` measures on, from its flags: tables, or a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import click
import numpy as np

from powerctl.boards import Board
from powerctl.commands.steps import TaskOptions
from powerctl.commands.tables import check_same, read_measured
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.search import Candidates
from powerctl.fulcrum.sources import DeviceSource, Source, TableSource, workload_of
from powerctl.measurement import MeasurementTable

_TABLES = (".csv", ".jsonl")


def open_source(
    roles: Mapping[str, str],
    spec: str | None,
    board: str | None,
    per_axis: int | None,
    tasks: Mapping[str, TaskOptions],
    seed: int,
) -> Source:
    """Open what a command line names.

    Parameters
    ----------
    roles : mapping of str to str
        A workload or a table for each role.
    spec : str or None
        The device; None for tables.
    board : str or None
        Board of tables.
    per_axis : int or None
        Only a sub-grid of so many values an axis.
    tasks : mapping of str to TaskOptions
        What runs on a device, of the roles that have a task of the user's own.
    seed : int
        Of the noise of a twin.
    """
    if spec is not None and spec.startswith("table:"):
        roles, spec = _of_table_device(roles, spec), None
    tables = [role for role, what in roles.items() if what.endswith(_TABLES)]
    if spec is None:
        if len(tables) < len(roles):
            raise click.UsageError("workloads need --device; or give each role its table")
        if tasks:
            raise click.UsageError("--task needs --device: tables are replayed")
        return _open_tables(roles, board, per_axis)
    if tables:
        raise click.UsageError(f"--{tables[0]} is a table, which needs no --device; give workloads")
    workloads = {role: workload_of(role, name) for role, name in roles.items()}
    device = open_device(spec, random_state=seed)
    if board is not None:
        check_same(f"--device {spec}", "board", device.board.name, board)
    space = device.space if per_axis is None else device.space.thinned(per_axis)
    steps = {
        role: partial(task.steps, device, workloads[role].kind) for role, task in tasks.items()
    }
    return DeviceSource(spec, device, Candidates(space), workloads, steps)


def _of_table_device(roles: Mapping[str, str], spec: str) -> dict[str, str]:
    if len(roles) > 1:
        raise click.UsageError(
            "a table device replays one workload; give each role its table: "
            + " ".join(f"--{role} FILE.csv" for role in roles)
        )
    return dict.fromkeys(roles, spec.removeprefix("table:"))


def _open_tables(paths: Mapping[str, str], board: str | None, per_axis: int | None) -> TableSource:
    tables: dict[str, MeasurementTable] = {}
    for role, path in paths.items():
        tables[role], found = read_table(role, path, board)
        board = found.name
    assert board is not None
    return TableSource.of(tables, board, per_axis)


def read_table(role: str, path: str, board: str | None) -> tuple[MeasurementTable, Board]:
    """The table of a role, a CSV or a log: of training without batch sizes, else with."""
    measured = read_measured(path, board, None, "train" if role == "train" else "infer", None)
    if role == "train":
        if measured.table.batch_size is not None:
            raise InvalidInput(f"{path} has several batch sizes: it is of inference, not training")
        return measured.table, measured.board
    table = measured.table
    if table.batch_size is None:
        if measured.batch_size is None:
            raise InvalidInput(f"{path} has no column batch_size: it is of training")
        table = replace(table, batch_size=np.full(len(table), measured.batch_size, dtype=np.int64))
    return table, measured.board


def tasks_by_role(
    texts: tuple[str, ...], settings: tuple[str, ...], roles: Mapping[str, str]
) -> dict[str, TaskOptions]:
    """The task of each role, from ``ROLE=my_task.py``; the role may be left out if there is one."""
    found = {}
    for text in texts:
        role, _, name = text.rpartition("=")
        role = role or (next(iter(roles)) if len(roles) == 1 else "")
        if role not in roles:
            raise click.UsageError(f"--task {text}: write ROLE=my_task.py, ROLE of {[*roles]}")
        found[role] = TaskOptions(name, settings)
    return found
