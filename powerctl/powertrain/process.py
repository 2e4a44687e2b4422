"""A Gaussian process on what the cost model leaves: covariances of log time and log power.

Both deviate smoothly over the axes, and together: where a minibatch takes longer than expected, a
busy module has less to do per second. Deviations come as components, each with a loading per
row and output and a kernel over the axes, or none (noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.bottleneck import Hardware
from powerctl.modes import FloatArray, IntArray, ModeArrays
from powerctl.powertrain.sensitivity import Sensitivity

_TAILS = 1.43  # the 90 % interval of Student's t with three degrees of freedom against the normal

# Components that deviate smoothly, by their length scales in octaves of cores, CPU clock, GPU
# clock, memory clock and batch size; inf: no change along that axis.
_KERNELS: Mapping[tuple[str, ...], tuple[float, ...]] = {
    ("time", "overlap"): (1.2, 0.8, 0.8, 0.8, 1.0),
    ("power",): (2.7, 2.0, 1.0, 1.5, 1.3),
    ("flop", "activity"): (np.inf, np.inf, np.inf, np.inf, 0.8),
    ("host",): (1.0, 1.5, np.inf, np.inf, 1.5),
    ("campaign",): (0.4, np.inf, np.inf, np.inf, np.inf),
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
    time_noise, power_noise, host_noise : float
        Scatter from mode to mode; the host's counts as far as the host binds.
    coupling : float
        Power falls by so much of the share that the workload adds, as time rises.
    """

    time: float = 0.027
    power: float = 0.028
    flop: float = 0.25
    activity: float = 0.1
    host: float = 0.08
    overlap: float = 0.03
    campaign: float = 0.02
    time_noise: float = 0.012
    power_noise: float = 0.008
    host_noise: float = 0.04
    host_power_noise: float = 0.01
    coupling: float = 0.7

    @property
    def variances(self) -> FloatArray:
        """Squares of all but the coupling, in the order of the fields."""
        return np.array([getattr(self, name) for name in COMPONENTS]) ** 2


COMPONENTS = tuple(field.name for field in fields(Deviations) if field.name != "coupling")
NOISES = ("time_noise", "power_noise", "host_noise", "host_power_noise")


class Places(NamedTuple):
    """Rows along the five axes: the values that occur, in octaves, and which one each row has."""

    values: tuple[FloatArray, ...]
    at: tuple[IntArray, ...]

    def take(self, some: slice) -> Places:
        """The places of some rows."""
        return Places(self.values, tuple(at[some] for at in self.at))


def places(hardware: Hardware, modes: ModeArrays, batch_size: ArrayLike) -> Places:
    """Where modes and batch sizes are; clocks relative to the board's highest."""
    tops = (1.0, hardware.max_cpu_hz / 1e3, hardware.max_gpu_hz, hardware.max_mem_hz, 1.0)
    sizes = np.broadcast_to(np.asarray(batch_size, dtype=np.float64), modes.cores.shape)
    found = [np.unique(axis, return_inverse=True) for axis in (*modes, sizes)]
    values = (np.log2(v / top) for (v, _), top in zip(found, tops, strict=True))
    return Places(tuple(values), tuple(at.ravel() for _, at in found))


class Rows(NamedTuple):
    """What covariances need of some rows: their places, and each component's loadings.

    `loadings` has shape (n_components, 2, n_rows), for log time and log power.
    """

    places: Places
    loadings: FloatArray

    def take(self, some: slice) -> Rows:
        """Some of the rows."""
        return Rows(self.places.take(some), self.loadings[:, :, some])


def rows_of(where: Places, answer: Sensitivity, coupling: float) -> Rows:
    """The rows at some places, with the loadings that the cost model's answers give them."""
    one, zero = np.ones_like(answer.log_time), np.zeros_like(answer.log_time)
    slower = np.array([one, -coupling * answer.active_share])
    loadings = {
        "time": slower,
        "power": np.array([zero, one]),
        "flop": answer.to_flop,
        "activity": np.array([zero, answer.active_share]),
        "host": answer.to_host,
        "time_noise": slower,
        "power_noise": np.array([zero, one]),
        "overlap": slower * 2 * np.sqrt(answer.host_share * (1 - answer.host_share)),
        "campaign": slower,
        "host_noise": slower * np.sqrt(answer.host_share),
        "host_power_noise": np.array([zero, np.sqrt(answer.host_share)]),
    }
    return Rows(where, np.array([loadings[name] for name in COMPONENTS]))


def correlations(one: Places, other: Places, dtype: type = np.float64) -> list[FloatArray]:
    """Correlation of each kernel between places, shape (n_one, n_other).

    Products over the axes of Matern kernels of smoothness 5/2. Modes share few values of an axis,
    so each factor is computed once per value.
    """
    found = []
    for scales in _KERNELS.values():
        product: FloatArray | None = None
        for axis, scale in enumerate(scales):
            if np.isinf(scale):
                continue
            apart = one.values[axis][:, None] - other.values[axis][other.at[axis]]
            factor: FloatArray = matern(apart, scale).astype(dtype).take(one.at[axis], axis=0)
            product = factor if product is None else np.multiply(product, factor, out=product)
        assert product is not None
        found.append(product)
    return found


def matern(distance: FloatArray, scale: float) -> FloatArray:
    """Matern correlation of smoothness 5/2 at some distances."""
    x = np.sqrt(5.0) / scale * np.abs(distance)
    return np.asarray((1 + x + x * x / 3) * np.exp(-x))


def covariance(
    variances: FloatArray, correlated: Sequence[FloatArray], one: Rows, other: Rows
) -> FloatArray:
    """Covariance of log times and log powers of rows with those of others, without noise.

    Shape (2 n_one, 2 n_other), log times first; `correlated` is of their places.
    """
    shape = one.loadings.shape[2], other.loadings.shape[2]
    total = np.zeros((2, shape[0], 2, shape[1]), correlated[0].dtype)
    for names, correlation in zip(_KERNELS, correlated, strict=True):
        of = [COMPONENTS.index(name) for name in names if variances[COMPONENTS.index(name)] > 0]
        for mine in range(2):
            for theirs in range(2):
                left = (variances[of, None] * one.loadings[of, mine]).astype(total.dtype)
                right = other.loadings[of, theirs].astype(total.dtype)
                if left.any() and right.any():
                    weight = left.T @ right
                    weight *= correlation
                    total[mine, :, theirs] += weight
    return total.reshape(2 * shape[0], 2 * shape[1])


def noise_covariance(variances: FloatArray, rows: Rows) -> FloatArray:
    """Covariance of the noise of rows, log times and then log powers, shape (2 n, 2 n)."""
    of = [COMPONENTS.index(name) for name in NOISES]
    loadings = rows.loadings[of]
    blocks = np.einsum("k,kon,kpn->opn", variances[of], loadings, loadings)
    return np.block([[np.diag(block) for block in row] for row in blocks])


def variance_of(variances: FloatArray, rows: Rows) -> FloatArray:
    """Variance of each output in each row without noise, shape (2, n_rows)."""
    smooth = np.array([name not in NOISES for name in COMPONENTS])
    return np.asarray(np.einsum("k,kon->on", smooth * variances, rows.loadings**2))


def noise_of(variances: FloatArray, rows: Rows) -> FloatArray:
    """Variance of each output's noise in each row, shape (2, n_rows).

    As wide as the 90 % interval of Student's t needs, of which the variances are the scale.
    """
    noise = np.array([name in NOISES for name in COMPONENTS])
    return np.asarray(_TAILS**2 * np.einsum("k,kon->on", noise * variances, rows.loadings**2))
