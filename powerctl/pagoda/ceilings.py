"""Ceilings that a device really reaches: kernels of known FLOP and bytes, and the roofline of them.

`powerctl.pagoda.microbenchmarks` measures them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np

from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Positive, Range, build
from powerctl.modes import FloatArray
from powerctl.pagoda.rooflines import Rooflines, fit_energy
from powerctl.pagoda.vendor import UNKNOWN, VendorPeaks
from powerctl.reading import parse_json, quoted, read_bytes

FORMAT = "powerctl-ceilings"
VERSION = 1

Kind: TypeAlias = Literal["stream", "product"]
_Work = Annotated[int, Range(0, 1e18)]  # no FLOP in a copy


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
    flop: _Work
    dram_bytes: _Work
    time_s: Positive
    energy_j: Amount | None = None

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

    @property
    def rooflines(self) -> Rooflines:
        """The rooflines, of this one mode; those of energy are NaN where it is not known."""
        energy = self.energy or EnergyFit(np.nan, np.nan, np.nan)
        values = (self.peak_flops, self.peak_bandwidth, *energy)
        return Rooflines(*(np.array([value]) for value in values))

    def attained(self, runs: Sequence[KernelRun]) -> FloatArray:
        """The roofline's time of kernels as a fraction of what they took."""
        flop, dram_bytes, time_s = self._columns(runs)
        return np.maximum(flop / self.peak_flops, dram_bytes / self.peak_bandwidth) / time_s

    @property
    def mixed(self) -> tuple[KernelRun, ...]:
        """The kernels that did not set the ceilings: how the roofline is checked."""
        return tuple(run for run in self.runs if run.kind == "product" and run is not self.fastest)

    def save(self, path: str | Path) -> None:
        """Write as JSON, for `load_ceilings`."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1)
        write_output(path, text + "\n")

    @staticmethod
    def _columns(runs: Sequence[KernelRun]) -> tuple[FloatArray, FloatArray, FloatArray]:
        values = np.array([(run.flop, run.dram_bytes, run.time_s) for run in runs], dtype=float)
        flop, dram_bytes, time_s = values.reshape(-1, 3).T
        return flop, dram_bytes, time_s


def load_ceilings(path: str | Path) -> Ceilings:
    """Read ceilings from the file that `Ceilings.save` wrote.

    Raises
    ------
    InvalidInput
        If the file cannot be read, or holds something else, or is of a newer version.
    """
    where = f"{path}: holds no ceilings (write some: powerctl roofline measure --out {path})"
    content = parse_json(read_bytes(path), where)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InvalidInput(where)
    version = content.pop("version", None)
    if version != VERSION:
        raise InvalidInput(f"{path}: of version {quoted(version)}; this powerctl reads {VERSION}")
    ceilings = build(Ceilings, content, where)
    if not {("stream", True), ("product", True)} <= {(r.kind, r.flop > 0) for r in ceilings.runs}:
        raise InvalidInput(f"{where}: a kernel of each kind is needed, a stream and a product")
    return ceilings
