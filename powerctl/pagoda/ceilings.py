"""Ceilings that a device really reaches: kernels of known FLOP and bytes, and the roofline of them.

`powerctl.pagoda.microbenchmarks` measures them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from powerctl.durable import write_output
from powerctl.modes import FloatArray
from powerctl.pagoda.rooflines import fit_energy
from powerctl.pagoda.vendor import UNKNOWN, VendorPeaks

Kind: TypeAlias = Literal["stream", "product"]


@dataclass(frozen=True)
class KernelRun:
    """What one call of a kernel took.

    Attributes
    ----------
    name : str
        For people.
    kind : {"stream", "product"}
        Bound by the memory, or a matrix product.
    flop, dram_bytes : int
        Work, and operands read and results written, each once.
    time_s : float
        Median of many calls.
    energy_j : float or None
        Mean of the calls, where a meter counted.
    """

    name: str
    kind: Kind
    flop: int
    dram_bytes: int
    time_s: float
    energy_j: float | None = None

    @property
    def intensity(self) -> float:
        """Arithmetic intensity of the kernel, FLOP per byte."""
        return self.flop / self.dram_bytes

    @property
    def flops(self) -> float:
        """FLOP per second that the kernel reached."""
        return self.flop / self.time_s

    @property
    def bandwidth(self) -> float:
        """Bytes per second that the kernel moved."""
        return self.dram_bytes / self.time_s


class EnergyFit(NamedTuple):
    """Joules of a FLOP and of a byte, and constant watts."""

    flop_j: float
    byte_j: float
    constant_w: float


@dataclass(frozen=True)
class Ceilings:
    """Kernels that ran on one device in one power mode.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.
    hardware : str
        What it is.
    dtype : str
        Type of the kernels' numbers; ``"tf32"`` where single-precision products were rounded.
    threads : int
        Of the CPU.
    meter : str
        What counted energy.
    runs : tuple of KernelRun
        At least one of each kind.
    vendor : VendorPeaks
        What the vendor says that the device reaches.
    """

    device: str
    hardware: str
    dtype: str
    threads: int
    meter: str
    runs: tuple[KernelRun, ...]
    vendor: VendorPeaks = UNKNOWN

    @property
    def fastest(self) -> KernelRun:
        """The kernel of most FLOP per second."""
        return max(self.runs, key=lambda run: run.flops)

    @property
    def peak_flops(self) -> float:
        """FLOP per second that the fastest kernel reached."""
        return self.fastest.flops

    @property
    def peak_bandwidth(self) -> float:
        """Bytes per second that the best streaming kernel reached."""
        return max(run.bandwidth for run in self.runs if run.kind == "stream")

    @property
    def energy(self) -> EnergyFit | None:
        """Energy of FLOP, bytes and time, where every kernel's energy is known."""
        energies = [run.energy_j for run in self.runs if run.energy_j is not None]
        if len(energies) < len(self.runs):
            return None
        return EnergyFit(*fit_energy(*self._columns(self.runs), np.array(energies)))

    def attained(self, runs: Sequence[KernelRun]) -> FloatArray:
        """The roofline's time of kernels as a fraction of what they took."""
        flop, dram_bytes, time_s = self._columns(runs)
        return np.maximum(flop / self.peak_flops, dram_bytes / self.peak_bandwidth) / time_s

    @property
    def mixed(self) -> tuple[KernelRun, ...]:
        """The kernels that did not set the ceilings: how the roofline is checked."""
        return tuple(run for run in self.runs if run.kind == "product" and run is not self.fastest)

    def save(self, path: str | Path) -> None:
        """Write what was measured as JSON."""
        text = json.dumps({"format": "powerctl-ceilings", "version": 1, **asdict(self)}, indent=1)
        write_output(path, text + "\n")

    @staticmethod
    def _columns(runs: Sequence[KernelRun]) -> tuple[FloatArray, FloatArray, FloatArray]:
        values = np.array([(run.flop, run.dram_bytes, run.time_s) for run in runs], dtype=float)
        flop, dram_bytes, time_s = values.reshape(-1, 3).T
        return flop, dram_bytes, time_s
