"""Time and energy rooflines of power modes: what a mode attains, and what a joule buys in it.

Time: T = max(W / peak FLOP/s, Q / peak bytes/s) for W FLOP and Q bytes of DRAM traffic.
Energy: E = W e_flop + Q e_byte + p T, after Choi et al. (IPDPS 2013); p is the power that a mode
takes whatever runs. Intensity is W / Q, in FLOP per byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from powerctl.boards import Board
from powerctl.cost_model import gpu_scale, idle_power_w
from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray, ModeArrays


@dataclass(frozen=True, eq=False)
class Rooflines:
    """The rooflines of some power modes; all arrays have shape (n_modes,).

    Attributes
    ----------
    peak_flops : FloatArray
        FLOP per second.
    peak_bandwidth : FloatArray
        Bytes of DRAM traffic per second.
    flop_j, byte_j : FloatArray
        Joules of a FLOP, and of a byte, beyond the constant power.
    constant_w : FloatArray
        Power whatever runs.
    """

    peak_flops: FloatArray
    peak_bandwidth: FloatArray
    flop_j: FloatArray
    byte_j: FloatArray
    constant_w: FloatArray

    def time_s(self, flop: ArrayLike, traffic_bytes: ArrayLike) -> FloatArray:
        """Least time of some work in each mode."""
        compute = np.asarray(flop) / self.peak_flops
        return np.maximum(compute, np.asarray(traffic_bytes) / self.peak_bandwidth)

    def energy_j(self, flop: ArrayLike, traffic_bytes: ArrayLike) -> FloatArray:
        """Energy of some work that takes the least time, in each mode."""
        dynamic = np.asarray(flop) * self.flop_j + np.asarray(traffic_bytes) * self.byte_j
        return np.asarray(dynamic + self.constant_w * self.time_s(flop, traffic_bytes))

    @property
    def time_balance(self) -> FloatArray:
        """Intensity from which on a mode is bound by compute."""
        return self.peak_flops / self.peak_bandwidth

    @property
    def energy_balance(self) -> FloatArray:
        """Intensity at which FLOP and bytes take the same energy, constant power left out."""
        return self.byte_j / self.flop_j

    @property
    def peak_flop_per_j(self) -> FloatArray:
        """FLOP per joule at unlimited intensity: a FLOP bears its time's constant power."""
        return 1 / (self.flop_j + self.constant_w / self.peak_flops)

    def effective_balance(self, intensity: ArrayLike) -> FloatArray:
        """Bytes' energy against a FLOP's at an intensity, constant power shared among both."""
        share = self.flop_j * self.peak_flop_per_j
        waiting = np.maximum(0.0, self.time_balance - np.asarray(intensity))
        return np.asarray(share * self.energy_balance + (1 - share) * waiting)

    @property
    def half_efficiency_intensity(self) -> FloatArray:
        """Intensity at which a mode does half its peak FLOP per joule."""
        share = self.flop_j * self.peak_flop_per_j
        bound = share * self.energy_balance
        waiting = (bound + (1 - share) * self.time_balance) / (2 - share)
        return np.where(bound >= self.time_balance, bound, waiting)

    def flop_per_j(self, intensity: ArrayLike) -> FloatArray:
        """FLOP per joule at an intensity."""
        at = np.asarray(intensity, dtype=np.float64)
        return np.asarray(self.peak_flop_per_j / (1 + self.effective_balance(at) / at))

    @property
    def time_efficient_is_energy_efficient(self) -> np.ndarray:
        """Whether work that is bound by compute also does at least half the peak FLOP per joule.

        Where this fails, a kernel can be as fast as the mode allows and still waste energy.
        """
        return np.asarray(self.half_efficiency_intensity <= self.time_balance)


def board_rooflines(
    board: Board, modes: ModeArrays | None = None, number_format: str = "fp32"
) -> Rooflines:
    """The rooflines of a board's modes (all by default) from its catalogue constants.

    Peaks are the vendor's, dense: of CUDA cores in single precision, of tensor cores in other
    formats (`Board.operations`), and the DRAM's width. Energy of a FLOP is that of a GPU busy at
    its peak, so less in formats of a higher one.
    """
    cores, cpu_khz, gpu_hz, mem_hz = board.space.arrays if modes is None else modes
    hardware = board.hardware
    gpu_clock = gpu_hz.astype(np.float64)
    peak_flops = gpu_clock * board.operations(number_format)
    busy_w = hardware.gpu_busy_w * gpu_scale(hardware, gpu_clock)
    return Rooflines(
        peak_flops=peak_flops,
        peak_bandwidth=mem_hz.astype(np.float64) * hardware.bytes_per_mem_cycle,
        flop_j=busy_w / peak_flops,
        byte_j=np.full(len(gpu_hz), hardware.byte_j),
        constant_w=idle_power_w(hardware, cores, cpu_khz, gpu_hz, mem_hz),
    )


def fit_energy(
    flop: FloatArray, traffic_bytes: FloatArray, time_s: FloatArray, energy_j: FloatArray
) -> tuple[float, float, float]:
    """Joules per FLOP and per byte, and constant watts, of one mode, from measured kernels.

    Least squares of relative errors with no coefficient below zero.

    Parameters
    ----------
    flop, traffic_bytes, time_s, energy_j : FloatArray, shape (n,)
        Of each kernel; at least three, of different intensities.
    """
    if len(energy_j) < 3:
        raise InvalidInput(f"three coefficients need at least 3 kernels, got {len(energy_j)}")
    terms = np.stack([flop, traffic_bytes, time_s], axis=1)
    if not (np.all(np.isfinite(terms)) and np.all(terms >= 0) and np.all(energy_j > 0)):
        raise InvalidInput("FLOP, bytes and seconds must be numbers, and joules positive ones")
    if np.linalg.matrix_rank(terms / np.maximum(terms.max(axis=0), 1e-300)) < 3:
        raise InvalidInput("the kernels are too much alike: measure more intensities")
    relative = terms / energy_j[:, None]
    scale = np.maximum(np.linalg.norm(relative, axis=0), 1e-300)
    found, _ = nnls(relative / scale, np.ones(len(energy_j)))
    flop_j, byte_j, constant_w = (found / scale).tolist()
    return flop_j, byte_j, constant_w
