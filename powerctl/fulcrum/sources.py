"""Where a search measures: tables that it replays, or a device that it profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from powerctl.device import Device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Candidates
from powerctl.measurement import MeasurementTable
from powerctl.modes import PowerMode
from powerctl.profiler import Procedure, Step, measure_mode
from powerctl.workload import Workload, load_workload

MakeSteps = Callable[[Sequence[int]], Mapping[int, Step]]  # for each of some batch sizes

_USUAL_SIZES = (1, 4, 16, 32, 64)


class Source(Protocol):
    """Something that can be measured."""

    @property
    def board(self) -> str:
        """Name of the board that is measured."""

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

    @classmethod
    def of(
        cls, tables: Mapping[str, MeasurementTable], board: str, per_axis: int | None = None
    ) -> TableSource:
        """The tables of the roles, measured on a board; or a sub-grid of their modes."""
        replay = Replay.of(tables, board)
        if per_axis is not None:
            replay = Replay.of(tables, board, replay.candidates.space.thinned(per_axis))
        return cls(board, tuple(table.source for table in tables.values()), replay)

    @property
    def candidates(self) -> Candidates:
        """The modes that all tables have."""
        return self.replay.candidates

    @property
    def name(self) -> str:
        """The files that the tables are from, in words."""
        return f"measured tables {', '.join(self.names)}"

    def sizes(self, role: str, asked: tuple[int, ...] | None) -> tuple[int, ...]:
        """Those asked for, or all of the table."""
        there = self.replay.batch_sizes(role)
        missing = set(asked or ()) - set(there)
        if missing:
            raise InvalidInput(
                f"the table of {role} has the batch sizes {', '.join(map(str, there))}, "
                f"not {', '.join(map(str, sorted(missing)))}"
            )
        return asked or there

    def measure(self, mode: PowerMode, job: Job) -> tuple[float, float]:
        """Seconds and watts of a minibatch, as the table has them."""
        return self.replay.measure(mode, job)

    def restore(self) -> None:
        """Do nothing: reading tables changes no mode."""


@dataclass
class DeviceSource:
    """A device that runs the workload of each role, measured as `powerctl profile` does it."""

    spec: str
    device: Device
    candidates: Candidates
    workloads: Mapping[str, Workload]
    steps_of: Mapping[str, MakeSteps] = field(default_factory=dict)
    replay: Replay | None = None
    seconds: float = 0.0
    _steps: dict[Job, Step | None] = field(default_factory=dict)

    @property
    def board(self) -> str:
        """Name of the board of the device."""
        return self.device.board.name

    @property
    def name(self) -> str:
        """The device, and what runs on it."""
        running = " and ".join(workload.name for workload in self.workloads.values())
        return f"{running} on {self.spec} (L4T {self.device.board.l4t})"

    @property
    def clock(self) -> str:
        """Which clock the device runs on, virtual or real, in words."""
        return ("virtual " if self.device.is_virtual else "") + "device time"

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
        if job not in self._steps:
            self._load(job.role, {workload.batch_size: job})
        seen = measure_mode(self.device, workload, mode, Procedure(), self._steps[job])
        self.seconds += seen.seconds
        return seen.time_s, seen.power_w

    def restore(self) -> None:
        """Return to the mode found at opening."""
        self.device.restore()

    def _load(self, role: str, jobs: Mapping[int, Job]) -> None:
        make = self.steps_of.get(role)
        steps = {} if make is None else make(list(jobs))
        self._steps |= {job: steps.get(size) for size, job in jobs.items()}


def workload_of(role: str, workload: Workload | str) -> Workload:
    """What runs in a role, of the kind that it must be; a name is of the catalogue, or a file."""
    found = load_workload(workload) if isinstance(workload, str) else workload
    if found.kind != kind_of(role):
        raise InvalidInput(f"{role} {found.name}: it is of kind {found.kind}, not {kind_of(role)}")
    return found


def kind_of(role: str) -> str:
    """The kind of workload that runs in a role."""
    return "train" if role == "train" else "infer"
