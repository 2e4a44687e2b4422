"""Where `powerctl solve` measures: tables that it replays, or a device that it profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import click
import numpy as np

from powerctl.boards import Board
from powerctl.commands.steps import TaskOptions
from powerctl.commands.tables import check_same, read_measured
from powerctl.device import Device, open_device
from powerctl.devices.virtual import VirtualDevice
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Candidates
from powerctl.measurement import MeasurementTable
from powerctl.modes import PowerMode
from powerctl.profiler import Procedure, Step, measure_mode
from powerctl.workload import Workload, load_workload

_USUAL_SIZES = (1, 4, 16, 32, 64)
_TABLES = (".csv", ".jsonl")


class Source(Protocol):
    """Something that can be measured."""

    @property
    def board(self) -> str:
        """Name of the board."""

    @property
    def name(self) -> str:
        """Where figures are from, in words."""

    @property
    def candidates(self) -> Candidates:
        """The modes that may be chosen."""
        ...

    @property
    def replay(self) -> Replay | None:
        """What measuring every mode would give, where that is known."""

    @property
    def seconds(self) -> float:
        """What measuring took so far, on the device's clock."""
        ...

    @property
    def clock(self) -> str:
        """Which clock that is, in words."""
        ...

    def sizes(self, role: str, asked: tuple[int, ...] | None) -> tuple[int, ...]:
        """The batch sizes of a role: those asked for, checked, or the usual."""
        ...

    def measure(self, mode: PowerMode, job: Job) -> tuple[float, float]:
        """Seconds and watts of a minibatch."""
        ...

    def restore(self) -> None:
        """Bring the device back to the mode found."""


@dataclass
class TableSource:
    """Measured tables, one for each role."""

    board: str
    names: tuple[str, ...]
    replay: Replay
    seconds: float = 0.0
    clock: str = "no time"

    @property
    def candidates(self) -> Candidates:
        """The modes that all tables have."""
        return self.replay.candidates

    @property
    def name(self) -> str:
        """The files."""
        return f"measured tables {', '.join(self.names)}"

    def sizes(self, role: str, asked: tuple[int, ...] | None) -> tuple[int, ...]:
        """Those asked for, or all of the table."""
        there = self.replay.batch_sizes(role)
        missing = set(asked or ()) - set(there)
        if missing:
            raise InvalidInput(
                f"the table of --{role} has the batch sizes {', '.join(map(str, there))}, "
                f"not {', '.join(map(str, sorted(missing)))}"
            )
        return asked or there

    def measure(self, mode: PowerMode, job: Job) -> tuple[float, float]:
        """What the table says."""
        return self.replay.measure(mode, job)

    def restore(self) -> None:
        """Nothing was changed."""


@dataclass
class DeviceSource:
    """A device that runs the workload of each role, measured as `powerctl profile` does it."""

    spec: str
    device: Device
    candidates: Candidates
    workloads: Mapping[str, Workload]
    tasks: Mapping[str, TaskOptions]
    replay: Replay | None = None
    seconds: float = 0.0
    _steps: dict[Job, Step | None] = field(default_factory=dict)

    @property
    def board(self) -> str:
        """Of the device."""
        return self.device.board.name

    @property
    def name(self) -> str:
        """The device, and what runs on it."""
        return f"{' and '.join(w.name for w in self.workloads.values())} on {self.spec}"

    @property
    def clock(self) -> str:
        """That of the device."""
        return ("virtual " if isinstance(self.device, VirtualDevice) else "") + "device time"

    def sizes(self, role: str, asked: tuple[int, ...] | None) -> tuple[int, ...]:
        """Those asked for, or the usual; a step is made for each now, not after an hour."""
        sizes = asked or _USUAL_SIZES
        self._load(role, {size: Job(role, size) for size in sizes})
        return sizes

    def measure(self, mode: PowerMode, job: Job) -> tuple[float, float]:
        """Profile one job in one mode; leaves the device in it."""
        workload = self.workloads[job.role]
        if job.batch_size is not None:
            workload = workload.with_batch_size(job.batch_size)
        elif job not in self._steps:
            self._load(job.role, {workload.batch_size: job})
        seen = measure_mode(self.device, workload, mode, Procedure(), self._steps[job])
        self.seconds += seen.seconds
        return seen.time_s, seen.power_w

    def restore(self) -> None:
        """Return to the mode found at opening."""
        self.device.restore()

    def _load(self, role: str, jobs: Mapping[int, Job]) -> None:
        task = self.tasks.get(role)
        steps = {} if task is None else task.steps(self.workloads[role].kind, list(jobs))
        self._steps |= {job: steps.get(size) for size, job in jobs.items()}


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
    workloads = {role: _workload(role, name) for role, name in roles.items()}
    device = open_device(spec, random_state=seed)
    if board is not None:
        check_same(f"--device {spec}", "board", device.board.name, board)
    space = device.space if per_axis is None else device.space.thinned(per_axis)
    return DeviceSource(spec, device, Candidates(space), workloads, tasks)


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
    replay = Replay.of(tables, board)
    if per_axis is not None:
        replay = Replay.of(tables, board, replay.candidates.space.thinned(per_axis))
    return TableSource(board, tuple(table.source for table in tables.values()), replay)


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


def _workload(role: str, name: str) -> Workload:
    workload, kind = load_workload(name), "train" if role == "train" else "infer"
    if workload.kind != kind:
        raise InvalidInput(f"--{role} {name}: it is of kind {workload.kind}, not {kind}")
    return workload


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
