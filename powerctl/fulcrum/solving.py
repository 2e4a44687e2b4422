"""A problem solved from a few measured modes, in one call."""

from __future__ import annotations

from collections.abc import Sequence

from powerctl.device import Device
from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Problem
from powerctl.fulcrum.search import Candidates, Search, Solution
from powerctl.fulcrum.solvers import find_solver
from powerctl.fulcrum.sources import DeviceSource, Source, TableSource, workload_of
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.reference import Reference
from powerctl.workload import Workload

Runs = Workload | MeasurementTable | str


def solve(
    problem: Problem,
    device: Device | str | None = None,
    *,
    train: Runs | None = None,
    infer: Runs | None = None,
    background: Runs | None = None,
    board: str = "orin-agx",
    solver: str = "default",
    cap: int = 15,
    references: Sequence[Reference] | None = None,
    random_state: int = 0,
) -> Solution:
    """The best mode and batch sizes within a problem's bounds, of the few that are measured.

    Parameters
    ----------
    problem : Problem
        `TrainAlone`, `InferAlone`, `Concurrent` or `TwoInferences`, with its bounds.
    device : Device or str, optional
        Where to measure, or what `open_device` opens; it is brought back to the mode found. None
        replays tables.
    train, infer, background : Workload, str or MeasurementTable
        What runs in each role of the problem: on a device a workload, or its name in the
        catalogue; without one, the table of its measurements.
    board : str
        Of tables.
    solver : str
        ``"default"``, ``"gmd"``, ``"als"``, ``"random-50"``; see `powerctl solve --help`.
    cap : int
        The most modes that are measured.
    references : sequence of Reference, optional
        What the solver knows other workloads from; by default all that come with powerctl.
    random_state : int
        Of the solver, and of the noise of a twin that is opened here.

    Returns
    -------
    Solution
        Its `mode` is None where nothing that was measured is within the bounds; `reason` says why
        the search ended.

    Raises
    ------
    InvalidInput
        For a role that the problem lacks or has not, or of another kind.
    UnknownName
        For a solver, workload or board that is not in its catalogue.
    """
    given = {"train": train, "infer": infer, "background": background}
    roles = {role: runs for role, runs in given.items() if runs is not None}
    if set(roles) != set(problem.roles):
        raise InvalidInput(
            f"{type(problem).__name__} needs {' and '.join(problem.roles)}: what runs; "
            f"got {' and '.join(roles) or 'none'}"
        )
    entry = find_solver(solver)
    source = _source(roles, device, board, random_state)
    cap = entry.cap(problem, cap)
    search = Search(problem, source.candidates, source.measure, cap)
    try:
        return entry.make(random_state, references).solve(search)
    finally:
        source.restore()


def _source(
    roles: dict[str, Runs], device: Device | str | None, board: str, random_state: int
) -> Source:
    if device is None:
        tables = {role: runs for role, runs in roles.items() if isinstance(runs, MeasurementTable)}
        if len(tables) < len(roles):
            raise InvalidInput("workloads need a device; or give each role its MeasurementTable")
        return TableSource.of(tables, board)
    workloads: dict[str, Workload] = {}
    for role, runs in roles.items():
        if isinstance(runs, MeasurementTable):
            raise InvalidInput(f"{role} is a table, which needs no device; give a workload")
        workloads[role] = workload_of(role, runs)
    if isinstance(device, str):
        spec, device = device, open_device(device, random_state=random_state)
    else:
        spec = device.board.name
    return DeviceSource(spec, device, Candidates(device.space), workloads)
