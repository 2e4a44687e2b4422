"""Fitting the cost model: a workload's signature to measurements, and a board's power constants.

Both are maximum a posteriori fits in the logarithms of parameters, times and powers: a full table
determines everything, five measured modes correct a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from powerctl.cost_model import Cost, Hardware, Signature, minibatch_cost
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray

NOISE = 0.05  # relative error of measurement and model together
ROWS = 700  # of a larger table, so many random rows determine the fit as well

PER_SAMPLE = ("host_cycles_per_sample", "flop_per_sample", "traffic_bytes_per_sample")
FIXED = ("host_cycles", "flop", "traffic_bytes")
SHAPES = (
    "host_stall_clocks",
    "serial_cores",
    "background_hz",
    "loader_cores",
    "traffic_exponent",
    "launch_stall_clocks",
    "gpu_norm",
    "overlap_norm",
)
ACTIVITIES = ("gpu_activity", "host_activity", "traffic_activity")
# All bounds, here and below, leave room around what most boards and workloads of the catalogue
# have: they keep a fit to few modes from parameters that no board has.
BOUNDS = {
    "serial_cores": (0.01, 4.0),
    "background_hz": (1e6, 3e9),
    "loader_cores": (0.3, 16.0),
    "traffic_exponent": (0.3, 2.0),
    "gpu_norm": (1.0, 12.0),
    "launch_norm": (1.0, 12.0),
    "overlap_norm": (1.0, 12.0),
}
_ACTIVITY_BOUNDS = dict.fromkeys(ACTIVITIES, (0.02, 20.0))
_SIZES = (*PER_SAMPLE, "launch_cycles")
# What needs measurements at several batch sizes: only small batches are bound by launches.
_BATCHED = (*FIXED, "launch_norm")
_POWER_BOUNDS = {
    "static_w": (0.5, 20.0),
    "mem_w": (0.05, 20.0),
    "mem_exponent": (0.2, 3.0),
    "byte_j": (1e-13, 1e-9),
    "gpu_idle_w": (0.01, 30.0),
    "gpu_busy_w": (0.5, 100.0),
    "core_online_w": (0.001, 5.0),
    "core_busy_w": (0.01, 10.0),
    "cluster_w": (0.001, 20.0),
    "gpu_voltage_rise": (0.02, 2.0),
    "gpu_voltage_knee": (0.02, 0.95),
    "cpu_voltage_rise": (0.02, 2.0),
    "cpu_voltage_knee": (0.02, 0.95),
}

# Of the order of the catalogue's workloads, rounded: the prior around it is broad.
GENERIC = Signature(
    host_cycles=1e8,
    host_cycles_per_sample=1e7,
    host_stall_clocks=0.15,
    serial_cores=0.5,
    background_hz=1.5e8,
    loader_cores=4.0,
    flop=1e9,
    flop_per_sample=1e10,
    traffic_bytes=1e8,
    traffic_bytes_per_sample=4e8,
    traffic_exponent=1.0,
    launch_cycles=1.5e7,
    launch_stall_clocks=0.002,
    gpu_norm=3.0,
    overlap_norm=6.0,
    gpu_activity=1.0,
    host_activity=1.0,
    traffic_activity=1.0,
)


def fit_signature(
    hardware: Hardware,
    table: MeasurementTable,
    batch_size: int,
    *,
    prior: Signature | None = None,
    random_state: int = 0,
) -> Signature:
    """The signature of a workload that explains its measured time and power best.

    Parameters
    ----------
    hardware : Hardware
        The board that the table is from.
    table : MeasurementTable
        Measurements, from a handful of modes to all of them.
    batch_size : int
        Samples of a minibatch where the table does not say.
    prior : Signature, optional
        A workload of the same kind: shapes stay near it, sizes may all be larger or smaller
        together. Without one the prior is generic and broad.
    random_state : int
        Chooses the rows of a large table.

    Returns
    -------
    Signature
        With fixed parts only if the table has several batch sizes.
    """
    start = prior or GENERIC
    if not start.background_hz:
        start = replace(start, background_hz=GENERIC.background_hz)
    rows = _sample(table, batch_size, random_state)
    several = len(np.unique(rows["batch_size"])) > 1
    if not several:
        start = replace(start, **dict.fromkeys(FIXED, 0.0))
    elif prior is None:
        start = replace(start, launch_norm=2.0, host_wait_share=1.0)
    free = (*_SIZES, *(n for n in _BATCHED if several and getattr(start, n)), *SHAPES)
    width = 0.6 if prior else 1.0  # of the logarithm: a factor of 1.8, or of 2.7
    shapes = np.array([width if name in (*SHAPES, "launch_norm") else 2 * width for name in free])

    def time_misfit(signature: Signature) -> FloatArray:
        return _log(_cost(hardware, signature, rows).time_s / rows["time_s"])

    timed = _map_fit(start, free, BOUNDS, shapes, time_misfit, shared=len(_SIZES))

    def power_misfit(signature: Signature) -> FloatArray:
        return _log(_cost(hardware, signature, rows).power_w / rows["power_w"])

    widths = np.full(len(ACTIVITIES), 0.7)
    return _map_fit(timed, ACTIVITIES, _ACTIVITY_BOUNDS, widths, power_misfit)


def fit_hardware(
    start: Hardware,
    tables: Sequence[MeasurementTable],
    signatures: Sequence[Signature],
    batch_size: int,
    *,
    random_state: int = 0,
) -> Hardware:
    """The board's power constants that explain the power of several workloads best.

    Parameters
    ----------
    start : Hardware
        Where to start; its speeds and clocks are kept, its power constants are a broad prior.
    tables, signatures
        Measurements of each workload, and its signature fitted in time. The first workload's
        activities are 1 by definition; the others' are fitted along.
    batch_size : int
        Samples of a minibatch where a table does not say.

    Returns
    -------
    Hardware
        With new power constants.
    """
    if not tables or len(tables) != len(signatures):
        raise InvalidInput("fitting a board needs as many signatures as tables, and at least one")
    data = [_sample(table, batch_size, random_state) for table in tables]
    names = tuple(_POWER_BOUNDS)
    plain = [replace(s, **dict.fromkeys(ACTIVITIES, 1.0)) for s in signatures]
    x0 = np.log([getattr(start, name) for name in names])
    n_own = len(ACTIVITIES)
    widths = np.concatenate([np.full(len(names), 2.5), np.full(n_own * (len(data) - 1), 1.0)])

    def unpack(x: FloatArray) -> tuple[Hardware, list[Signature]]:
        values = np.exp(x[: len(names)])
        own = np.exp(x[len(names) :]).reshape(-1, n_own)
        fitted = [
            replace(s, **dict(zip(ACTIVITIES, row.tolist(), strict=True)))
            for s, row in zip(plain[1:], own, strict=True)
        ]
        hardware = replace(start, **dict(zip(names, values.tolist(), strict=True)))
        return hardware, [plain[0], *fitted]

    origin = np.concatenate([x0, np.zeros(n_own * (len(data) - 1))])

    def misfit(x: FloatArray) -> FloatArray:
        hardware, own = unpack(x)
        parts = [
            _log(_cost(hardware, s, rows).power_w / rows["power_w"]) / NOISE
            for s, rows in zip(own, data, strict=True)
        ]
        return np.concatenate([*parts, (x - origin) / widths])

    low, high = np.log(np.array(list(_POWER_BOUNDS.values()))).T
    own_bounds = np.log(np.array([_ACTIVITY_BOUNDS[n] for n in ACTIVITIES] * (len(data) - 1)))
    if len(own_bounds):
        low, high = np.append(low, own_bounds[:, 0]), np.append(high, own_bounds[:, 1])
    return unpack(_solve(misfit, origin, low, high))[0]


def errors_pct(
    hardware: Hardware, signature: Signature, table: MeasurementTable, batch_size: int
) -> tuple[float, float]:
    """Mean absolute percentage errors in time and power over all rows of a table."""
    sizes = batch_size if table.batch_size is None else table.batch_size
    cost = minibatch_cost(hardware, signature, *table.modes, sizes)
    time_error = np.abs(cost.time_s / table.time_s - 1).mean()
    power_error = np.abs(cost.power_w / table.power_w - 1).mean()
    return 100 * float(time_error), 100 * float(power_error)


def _sample(table: MeasurementTable, batch_size: int, random_state: int) -> dict[str, Any]:
    if not len(table):
        raise InvalidTable(f"{table.source}: nothing to fit to")
    if len(table) > ROWS:
        picks = np.random.default_rng(random_state).permutation(len(table))[:ROWS]
        table = table.take(np.sort(picks))
    sizes = np.full(len(table), batch_size) if table.batch_size is None else table.batch_size
    columns = {"batch_size": sizes, "time_s": table.time_s, "power_w": table.power_w}
    return {**table.modes._asdict(), **columns}


def _cost(hardware: Hardware, signature: Signature, rows: Mapping[str, Any]) -> Cost:
    axes = ("cores", "cpu_khz", "gpu_hz", "mem_hz", "batch_size")
    return minibatch_cost(hardware, signature, *(rows[axis] for axis in axes))


def _map_fit(
    start: Signature,
    names: Sequence[str],
    bounds: Mapping[str, tuple[float, float]],
    widths: FloatArray,
    misfit: Callable[[Signature], FloatArray],
    shared: int = 0,
) -> Signature:
    """Fit some parameters of a signature around its own values.

    The first `shared` parameters may move together by a factor of their own, with a broad prior.
    """
    values = asdict(start)
    x0 = np.log([values[name] for name in names])
    limits = [bounds.get(n, (1e-9 * values[n], 1e4 * values[n])) for n in names]
    low, high = np.log(np.array(limits)).T
    together = np.zeros(len(names))
    together[:shared] = 1.0

    def signature(x: FloatArray) -> Signature:
        return replace(start, **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def residuals(x: FloatArray) -> FloatArray:
        common = float((together * (x - x0)).sum() / max(shared, 1))
        prior = (x - x0 - common * together) / widths
        return np.concatenate([misfit(signature(x)) / NOISE, prior, [common / 3.0]])

    return signature(_solve(residuals, x0, low, high))


def _solve(
    residuals: Callable[[FloatArray], FloatArray],
    start: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> FloatArray:
    inside = np.clip(start, low + 1e-3, high - 1e-3)
    solution = least_squares(
        residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=2.0, max_nfev=300
    )
    return np.asarray(solution.x, dtype=np.float64)


def _log(ratio: FloatArray) -> FloatArray:
    return np.asarray(np.log(ratio), dtype=np.float64)
