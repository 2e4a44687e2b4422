"""Kernels of a Gaussian process on what the cost model leaves of log time and log power.

Both deviate smoothly over the axes, and together: where a minibatch takes longer than expected, a
busy module has less to do per second. Deviations come as components, each with a loading per
row and output and a kernel over the axes, or none (noise).

    cov[o(i), o'(j)] = sum over components k of  v_k  a_k(o, i) a_k(o', j)  rho_k(i, j)

    i, j     rows: a mode and a batch size (`Rows`)
    o, o'    outputs: log time, log power
    v_k      variance of component k (`Deviations.variances`)
    a_k      loading: the component's direction in the row, times its share there
    rho_k    correlation: over the axes, a product of Matern kernels of smoothness 5/2,
             (1 + x + x^2 / 3) e^-x with x = sqrt(5) times the distance in octaves over the length
             scale; of noise, 1 where i = j and 0 elsewhere
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.cost_model import Hardware
from powerctl.fields import Amount
from powerctl.modes import FloatArray, IntArray, ModeArrays
from powerctl.powertrain.sensitivity import Sensitivity

_TAILS = 1.43  # the 90 % interval of Student's t with three degrees of freedom against the normal

# Length scales in octaves of cores, CPU clock, GPU clock, memory clock and batch size; inf: no
# change along that axis; noise has none.
_KERNELS: Mapping[str, tuple[float, ...]] = {
    "time": (1.2, 0.8, 0.8, 0.8, 1.0),
    "power": (2.7, 2.0, 1.0, 1.5, 1.3),
    "size": (np.inf, np.inf, np.inf, np.inf, 0.8),
    "host": (1.0, 1.5, np.inf, np.inf, 1.5),
    "campaign": (0.4, np.inf, np.inf, np.inf, np.inf),
}
# Each component's direction in the plane of log time and log power, and its kernel.
_DIRECTIONS = ("slower", "hotter", "more_flop", "more_active", "more_host")
_MADE_OF: Mapping[str, tuple[str, str]] = {
    "time": ("slower", "time"),
    "power": ("hotter", "power"),
    "flop": ("more_flop", "size"),
    "activity": ("more_active", "size"),
    "host": ("more_host", "host"),
    "overlap": ("slower", "time"),
    "campaign": ("slower", "campaign"),
    "time_noise": ("slower", "noise"),
    "power_noise": ("hotter", "noise"),
    "host_noise": ("slower", "noise"),
    "host_power_noise": ("hotter", "noise"),
}


@dataclass(frozen=True)
class Deviations:
    """How far workloads deviate from the cost model: standard deviations of logarithms.

    Attributes
    ----------
    time, power : float
        Smooth deviations of each over all axes.
    flop, activity, host : float
        Of the effective FLOP and of the power that work adds over batch sizes (kernels are chosen
        by size), and of the host's cycles over cores, CPU clock and batch size.
    overlap : float
        Of time where host and GPU bind together.
    campaign : float
        From one number of cores to another: modes of one number are measured together, between
        reboots, and share what else went on.
    time_noise, power_noise, host_noise, host_power_noise : float
        Scatter from mode to mode; the host's counts as far as the host binds.
    coupling : float
        Power falls by so much of the share that the workload adds, as time rises.
    """

    time: Amount = 0.027
    power: Amount = 0.028
    flop: Amount = 0.25
    activity: Amount = 0.1
    host: Amount = 0.08
    overlap: Amount = 0.03
    campaign: Amount = 0.02
    time_noise: Amount = 0.012
    power_noise: Amount = 0.008
    host_noise: Amount = 0.04
    host_power_noise: Amount = 0.01
    coupling: Amount = 0.7

    @property
    def variances(self) -> FloatArray:
        """Squares of all but the coupling, in the order of the fields."""
        return np.array([getattr(self, name) for name in COMPONENTS]) ** 2


COMPONENTS = tuple(_MADE_OF)
NOISES = tuple(name for name, (_, kernel) in _MADE_OF.items() if kernel == "noise")
assert {*COMPONENTS, "coupling"} == {field.name for field in fields(Deviations)}


class Places(NamedTuple):
    """Rows along the five axes: the values that occur, in octaves, and which one each row has."""

    values: tuple[FloatArray, ...]
    at: tuple[IntArray, ...]


def places(hardware: Hardware, modes: ModeArrays, batch_size: ArrayLike) -> Places:
    """Where modes and batch sizes are; clocks relative to the board's highest."""
    tops = (1.0, hardware.max_cpu_hz / 1e3, hardware.max_gpu_hz, hardware.max_mem_hz, 1.0)
    sizes = np.broadcast_to(np.asarray(batch_size, dtype=np.float64), modes.cores.shape)
    found = [np.unique(axis, return_inverse=True) for axis in (*modes, sizes)]
    values = (np.log2(v / top) for (v, _), top in zip(found, tops, strict=True))
    return Places(tuple(values), tuple(at.ravel() for _, at in found))


class Rows(NamedTuple):
    """What covariances need of some rows.

    Attributes
    ----------
    places : Places
        Where they are.
    directions : FloatArray, shape (n_directions, 2, n_rows)
        How log time and log power change along each direction.
    shares : FloatArray, shape (n_components, n_rows)
        How far each component counts.
    """

    places: Places
    directions: FloatArray
    shares: FloatArray


def rows_of(where: Places, answer: Sensitivity, coupling: float) -> Rows:
    """The rows at some places, as the cost model answers there."""
    one, zero = np.ones_like(answer.log_time), np.zeros_like(answer.log_time)
    directions = {
        "slower": (one, -coupling * answer.active_share),
        "hotter": (zero, one),
        "more_flop": answer.to_flop,
        "more_active": (zero, answer.active_share),
        "more_host": answer.to_host,
    }
    host = np.sqrt(answer.host_share)
    shares = {
        "overlap": 2 * host * np.sqrt(1 - answer.host_share),
        "host_noise": host,
        "host_power_noise": host,
    }
    return Rows(
        where,
        np.array([directions[name] for name in _DIRECTIONS]),
        np.array([shares.get(name, one) for name in COMPONENTS]),
    )


def correlations(one: Places, other: Places, dtype: type = np.float64) -> dict[str, Any]:
    """Correlation of each kernel between places, shape (n_one, n_other).

    Products over the axes of Matern kernels of smoothness 5/2. Modes share few values of an axis,
    so each factor is computed once per value.
    """
    found: dict[str, Any] = {}
    for name, scales in _KERNELS.items():
        for axis, scale in enumerate(scales):
            if np.isinf(scale):
                continue
            apart = one.values[axis][:, None] - other.values[axis][other.at[axis]]
            factor: Any = matern(apart, scale).astype(dtype).take(one.at[axis], axis=0)
            found[name] = np.multiply(found[name], factor, out=factor) if name in found else factor
    return found


def matern(distance: FloatArray, scale: float) -> FloatArray:
    """Matern correlation of smoothness 5/2 at some distances."""
    x = np.sqrt(5.0) / scale * np.abs(distance)
    return np.asarray((1 + x + x * x / 3) * np.exp(-x))


def along_directions(
    variances: FloatArray, correlated: Mapping[str, Any], one: Rows, other: Rows
) -> dict[int, Any]:
    """Covariance of rows along each direction that there is variance in, without noise.

    Shape (n_one, n_other) each; `correlated` is of their places.
    """
    found: dict[int, Any] = {}
    for k, (direction, kernel) in enumerate(_MADE_OF.values()):
        if kernel == "noise" or not variances[k]:
            continue
        correlation = correlated[kernel]
        part = correlation * correlation.dtype.type(variances[k])
        if COMPONENTS[k] == "overlap":  # all others count in full
            part *= np.outer(one.shares[k], other.shares[k]).astype(part.dtype, copy=False)
        d = _DIRECTIONS.index(direction)
        found[d] = np.add(found[d], part, out=part) if d in found else part
    return found


def in_plane(rows: Rows, along: Mapping[int, Any]) -> Any:
    """What is given along directions, of log time and log power: (2, n, m) of (n, m) each."""
    some = next(iter(along.values()))
    total = np.empty((2, *some.shape), some.dtype)
    for output, sum_ in enumerate(total):
        weights = rows.directions[:, output].astype(some.dtype, copy=False)
        live = [d for d in along if weights[d].any()]
        sum_.fill(0) if not live else np.multiply(
            weights[live[0]][:, None], along[live[0]], out=sum_
        )
        for d in live[1:]:
            sum_ += weights[d][:, None] * along[d]
    return total


def covariance(
    variances: FloatArray, correlated: Mapping[str, Any], one: Rows, other: Rows
) -> FloatArray:
    """Covariance of log times and log powers of rows with those of others, without noise.

    Shape (2 n_one, 2 n_other), log times first; `correlated` is of their places.
    """
    along = along_directions(variances, correlated, one, other)
    if not along:
        return np.zeros((one.directions[0].size, other.directions[0].size))
    with_output = [
        in_plane(one, {d: values * other.directions[d, output] for d, values in along.items()})
        for output in range(2)
    ]
    return np.concatenate(np.concatenate(with_output, axis=2))


def noise_covariance(variances: FloatArray, rows: Rows) -> FloatArray:
    """Covariance of the noise of rows, log times and then log powers, shape (2 n, 2 n)."""
    loadings = _loadings(rows, NOISES)
    of = [COMPONENTS.index(name) for name in NOISES]
    blocks = np.einsum("k,kon,kpn->opn", variances[of], loadings, loadings)
    return np.block([[np.diag(block) for block in row] for row in blocks])


def variance_of(variances: FloatArray, rows: Rows) -> FloatArray:
    """Variance of each output in each row without noise, shape (2, n_rows)."""
    return _variance(variances, rows, [name for name in COMPONENTS if name not in NOISES])


def noise_of(variances: FloatArray, rows: Rows) -> FloatArray:
    """Variance of each output's noise in each row, shape (2, n_rows).

    As wide as the 90 % interval of Student's t needs, of which the variances are the scale.
    """
    return _TAILS**2 * _variance(variances, rows, NOISES)


def _variance(variances: FloatArray, rows: Rows, names: Sequence[str]) -> FloatArray:
    of = [COMPONENTS.index(name) for name in names]
    return np.asarray(np.einsum("k,kon->on", variances[of], _loadings(rows, names) ** 2))


def _loadings(rows: Rows, names: Sequence[str]) -> FloatArray:
    """How log time and log power of each row answer to some components, (n_names, 2, n_rows)."""
    of = [COMPONENTS.index(name) for name in names]
    directions = [_DIRECTIONS.index(_MADE_OF[name][0]) for name in names]
    return rows.directions[directions] * rows.shares[of, None]
