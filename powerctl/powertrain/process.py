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
from powerctl.modes import FloatArray, ModeArrays
from powerctl.powertrain.sensitivity import Sensitivity

_TAILS = 1.3  # the 90 % interval of Student's t with four degrees of freedom against the normal

# Length scales in octaves of cores, CPU clock, GPU clock, memory clock and batch size; inf: no
# change along that axis.
_SCALES: Mapping[str, tuple[float, ...]] = {
    "time": (1.2, 0.8, 0.8, 0.8, 1.0),
    "power": (2.7, 2.0, 1.0, 1.5, 1.3),
    "flop": (np.inf, np.inf, np.inf, np.inf, 0.8),
    "host": (1.0, 1.5, np.inf, np.inf, 1.5),
    "overlap": (1.2, 0.8, 0.8, 0.8, 1.0),
    "campaign": (0.4, np.inf, np.inf, np.inf, np.inf),
}


@dataclass(frozen=True)
class Deviations:
    """How far workloads deviate from the cost model: standard deviations of logarithms.

    Attributes
    ----------
    time, power : float
        Smooth deviations of each over all axes.
    flop, host : float
        Of the effective FLOP over batch sizes (kernels are chosen by size), and of the host's
        cycles over cores, CPU clock and batch size.
    time_noise, power_noise, host_noise : float
        Scatter from mode to mode; the host's counts as far as the host binds.
    coupling : float
        Power falls by so much of the share that the workload adds, as time rises.
    """

    time: float = 0.027
    power: float = 0.028
    flop: float = 0.25
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


def coordinates(hardware: Hardware, modes: ModeArrays, batch_size: ArrayLike) -> FloatArray:
    """Octaves along the axes, clocks relative to the board's highest, shape (5, n_modes)."""
    tops = (1.0, hardware.max_cpu_hz / 1e3, hardware.max_gpu_hz, hardware.max_mem_hz)
    relative = [axis / top for axis, top in zip(modes, tops, strict=True)]
    sizes = np.broadcast_to(np.asarray(batch_size, dtype=np.float64), relative[0].shape)
    return np.log2(np.array([*relative, sizes]))


class Rows(NamedTuple):
    """What covariances need of some rows: their place, and each component's loadings.

    `loadings` has shape (n_components, 2, n_rows), for log time and log power.
    """

    place: FloatArray
    loadings: FloatArray


def rows_of(place: FloatArray, answer: Sensitivity, coupling: float) -> Rows:
    """The rows at some places, with the loadings that the cost model's answers give them."""
    one, zero = np.ones_like(answer.log_time), np.zeros_like(answer.log_time)
    slower = np.array([one, -coupling * answer.active_share])
    loadings = {
        "time": slower,
        "power": np.array([zero, one]),
        "flop": answer.to_flop,
        "host": answer.to_host,
        "time_noise": slower,
        "power_noise": np.array([zero, one]),
        "overlap": slower * 2 * np.sqrt(answer.host_share * (1 - answer.host_share)),
        "campaign": slower,
        "host_noise": slower * np.sqrt(answer.host_share),
        "host_power_noise": np.array([zero, np.sqrt(answer.host_share)]),
    }
    return Rows(place, np.array([loadings[name] for name in COMPONENTS]))


def kernel(name: str, one: FloatArray, other: FloatArray) -> FloatArray:
    """Correlations of a component between places, shape (n_one, n_other).

    A product over the axes of Matern kernels of smoothness 5/2. Modes share few values of an
    axis, so each is computed once per value.
    """
    product: FloatArray | None = None
    for axis, scale in enumerate(_SCALES[name]):
        if np.isinf(scale):
            continue
        values, at = np.unique(one[axis], return_inverse=True)
        factor = matern(values[:, None] - other[axis], scale)
        rows = np.take(factor, at, axis=0)
        product = rows if product is None else np.multiply(product, rows, out=product)
    assert product is not None
    return product


def matern(distance: FloatArray, scale: float) -> FloatArray:
    """Matern correlation of smoothness 5/2 at some distances."""
    x = np.sqrt(5.0) / scale * np.abs(distance)
    return np.asarray((1 + x + x * x / 3) * np.exp(-x))


def correlations(place: FloatArray) -> list[FloatArray]:
    """Correlation of each component between some places, shape (n, n)."""
    same = np.eye(place.shape[1])
    return [same if name in NOISES else kernel(name, place, place) for name in COMPONENTS]


def covariance(
    variances: FloatArray, correlated: Sequence[FloatArray], rows: Rows
) -> FloatArray:
    """Covariance of rows, log times and then log powers, noise and all.

    Shape (2 n_rows, 2 n_rows); `correlated` is what `correlations` gives for their places.
    """
    n = rows.place.shape[1]
    total = np.zeros((2, n, 2, n))
    for variance, correlation, loading in zip(variances, correlated, rows.loadings, strict=True):
        for one, mine in enumerate(variance * loading):
            if mine.any():
                weighted = mine[:, None] * correlation
                for other, theirs in enumerate(loading):
                    if theirs.any():
                        total[one, :, other] += weighted * theirs
    return total.reshape(2 * n, 2 * n)


def cross_covariance(variances: FloatArray, one: Rows, other: Rows) -> FloatArray:
    """Covariance of both outputs in rows with both in other rows, shape (2, n_one, 2 n_other).

    The rows are different measurements, so noise is not shared.
    """
    n_other = other.place.shape[1]
    total = np.zeros((2, one.place.shape[1], 2, n_other))
    for name, variance, mine, theirs in zip(
        COMPONENTS, variances, one.loadings, other.loadings, strict=True
    ):
        if name in NOISES or variance == 0:
            continue
        correlation = kernel(name, one.place, other.place)
        for output, weight in enumerate(mine):
            if weight.any():
                weighted = correlation * (variance * weight)[:, None]
                for column, their in enumerate(theirs):
                    if their.any():
                        total[output, :, column] += weighted * their
    return total.reshape(2, total.shape[1], 2 * n_other)


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
