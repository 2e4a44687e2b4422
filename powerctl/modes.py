"""Power modes and the space of all modes of a board: four axes, neighbours, sub-grids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from powerctl.errors import InvalidInput, ModeNotInSpace

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

AXES = ("cores", "cpu_khz", "gpu_hz", "mem_hz")
_PER_MHZ = (1, 1_000, 1_000_000, 1_000_000)
_AXIS_NAMES = ("cores", "cpu", "gpu", "memory")


@dataclass(frozen=True, order=True)
class PowerMode:
    """Cores online and the clocks of CPU, GPU and memory.

    Prints as ``12c/2201/1300/3199``: cores, then MHz rounded down.
    """

    cores: int
    cpu_khz: int
    gpu_hz: int
    mem_hz: int

    def __str__(self) -> str:
        cpu, gpu, mem = (v // m for v, m in zip(self.values[1:], _PER_MHZ[1:], strict=True))
        return f"{self.cores}c/{cpu}/{gpu}/{mem}"

    @property
    def values(self) -> tuple[int, int, int, int]:
        """The four axis values, in the order of `AXES`."""
        return (self.cores, self.cpu_khz, self.gpu_hz, self.mem_hz)


class ModeArrays(NamedTuple):
    """Many modes as four integer arrays of one shape: what predictors and devices compute on."""

    cores: IntArray
    cpu_khz: IntArray
    gpu_hz: IntArray
    mem_hz: IntArray

    @classmethod
    def of(cls, modes: Sequence[PowerMode]) -> ModeArrays:
        """The arrays of a sequence of modes, shape (len(modes),)."""
        table = np.array([mode.values for mode in modes], dtype=np.int64).reshape(-1, 4)
        return cls(*table.T)

    def take(self, indices: ArrayLike) -> ModeArrays:
        """The modes at some indices."""
        at = np.asarray(indices, dtype=np.int64)
        return ModeArrays(*(axis[at] for axis in self))

    def mode(self, index: int) -> PowerMode:
        """One of the modes as an object."""
        return PowerMode(*(int(axis[index]) for axis in self))


@dataclass(frozen=True)
class ModeSpace:
    """All combinations of the values of four axes.

    Modes are numbered with memory running fastest and cores slowest (C order), and are kept as
    arrays: the 29,232 modes of an AGX Xavier are made in about a millisecond.

    Parameters
    ----------
    cores, cpu_khz, gpu_hz, mem_hz : tuple of int
        Values of each axis, strictly ascending.
    name : str, optional
        Of the board, for error messages.
    """

    cores: tuple[int, ...]
    cpu_khz: tuple[int, ...]
    gpu_hz: tuple[int, ...]
    mem_hz: tuple[int, ...]
    name: str = field(default="this board", kw_only=True)

    def __post_init__(self) -> None:
        for axis, values in zip(AXES, self.axes, strict=True):
            if not values or values[0] <= 0 or any(b <= a for a, b in pairwise(values)):
                raise InvalidInput(
                    f"{self.name}: axis {axis} must be ascending positive values, got {values}"
                )

    @property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """The values of the four axes, in the order of `AXES`."""
        return (self.cores, self.cpu_khz, self.gpu_hz, self.mem_hz)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values on each axis."""
        return tuple(len(axis) for axis in self.axes)

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    def __iter__(self) -> Iterator[PowerMode]:
        arrays = self.arrays
        return (arrays.mode(i) for i in range(len(self)))

    def __contains__(self, mode: PowerMode) -> bool:
        return all(v in axis for v, axis in zip(mode.values, self.axes, strict=True))

    @cached_property
    def arrays(self) -> ModeArrays:
        """Every mode, in the order of the numbering; arrays of shape (len(self),)."""
        grids = np.meshgrid(*(np.array(a, dtype=np.int64) for a in self.axes), indexing="ij")
        return ModeArrays(*(grid.ravel() for grid in grids))

    @property
    def maximum(self) -> PowerMode:
        """Every axis at its highest: the MAXN mode."""
        return PowerMode(*(axis[-1] for axis in self.axes))

    @property
    def minimum(self) -> PowerMode:
        """Every axis at its lowest."""
        return PowerMode(*(axis[0] for axis in self.axes))

    def mode(self, index: int) -> PowerMode:
        """The mode of a number in ``range(len(self))``."""
        if not 0 <= index < len(self):
            raise InvalidInput(f"mode number {index} is not in 0..{len(self) - 1} of {self.name}")
        at = np.unravel_index(index, self.shape)
        return PowerMode(*(axis[int(i)] for axis, i in zip(self.axes, at, strict=True)))

    def index(self, mode: PowerMode) -> int:
        """The number of a mode; raises `ModeNotInSpace` naming the axis and the nearest values."""
        self.check(mode)
        at = [axis.index(v) for v, axis in zip(mode.values, self.axes, strict=True)]
        return int(np.ravel_multi_index(at, self.shape))

    def indices(self, modes: ModeArrays) -> IntArray:
        """The numbers of many modes; -1 where a mode is not in the space."""
        number = np.zeros(modes.cores.shape, dtype=np.int64)
        known = np.ones(modes.cores.shape, dtype=bool)
        for values, axis in zip(modes, self.axes, strict=True):
            ladder = np.array(axis, dtype=np.int64)
            at = np.minimum(np.searchsorted(ladder, values), len(ladder) - 1)
            known &= ladder[at] == values
            number = number * len(ladder) + at
        return np.where(known, number, -1)

    def check(self, mode: PowerMode) -> None:
        """Raise `ModeNotInSpace` unless the mode is in the space."""
        for axis_name, per_mhz, value, axis in zip(
            _AXIS_NAMES, _PER_MHZ, mode.values, self.axes, strict=True
        ):
            if value not in axis:
                near = sorted(sorted(axis, key=lambda v: abs(v - value))[:2])
                unit = "" if axis_name == "cores" else " MHz"
                shown = ", ".join(f"{v / per_mhz:g}" for v in near)
                raise ModeNotInSpace(
                    f"{axis_name} {value / per_mhz:g}{unit} is not a value of {self.name} "
                    f"(nearest: {shown}{unit}); list them with: powerctl modes --board {self.name}"
                )

    def neighbours(self, index: int) -> IntArray:
        """Numbers of the modes that differ by one step on one axis."""
        at = np.array(np.unravel_index(index, self.shape))
        steps = np.vstack([np.eye(4, dtype=np.int64), -np.eye(4, dtype=np.int64)]) + at
        inside = np.all((steps >= 0) & (steps < np.array(self.shape)), axis=1)
        return np.sort(np.ravel_multi_index(tuple(steps[inside].T), self.shape)).astype(np.int64)

    def nearest(self, mode: PowerMode) -> PowerMode:
        """The mode of the space with the nearest value on every axis (ties go down)."""
        pairs = zip(mode.values, self.axes, strict=True)
        return PowerMode(*(min(axis, key=lambda v: (abs(v - value), v)) for value, axis in pairs))

    def capped(self, limits: Sequence[int | None]) -> PowerMode:
        """The highest mode within a limit per axis; None leaves an axis uncapped.

        This is how nvpmodel's presets are meant: a limit between two table values means the
        lower one, and a limit below the table its lowest value. Limits of the GPU may be rounded
        numbers (520 for 522.75 MHz on Xavier), so there one per cent above counts as within.
        """
        chosen = []
        for limit, axis, rounded in zip(limits, self.axes, (1, 1, 1.01, 1), strict=True):
            within = [v for v in axis if limit is None or v <= rounded * limit]
            chosen.append(within[-1] if within else axis[0])
        return PowerMode(*chosen)

    def subspace(self, **values: Sequence[int]) -> ModeSpace:
        """The space with some axes reduced to given values, e.g. ``subspace(cores=(4, 8))``."""
        unknown = set(values) - set(AXES)
        if unknown:
            raise InvalidInput(f"no axis {', '.join(sorted(unknown))}; axes are {', '.join(AXES)}")
        axes = []
        for axis, present in zip(AXES, self.axes, strict=True):
            wanted = tuple(sorted(set(values.get(axis, present))))
            missing = set(wanted) - set(present)
            if missing:
                raise ModeNotInSpace(f"{axis} {sorted(missing)} not among {present} of {self.name}")
            axes.append(wanted)
        return ModeSpace(*axes, name=self.name)

    def thinned(self, per_axis: int) -> ModeSpace:
        """A sub-grid of at most `per_axis` evenly spread values of each axis, both ends kept."""
        if per_axis < 2:
            raise InvalidInput(f"a sub-grid needs at least 2 values per axis, got {per_axis}")
        axes = []
        for axis in self.axes:
            picks = np.unique(np.linspace(0, len(axis) - 1, min(per_axis, len(axis))).round())
            axes.append(tuple(axis[int(i)] for i in picks))
        return ModeSpace(*axes, name=self.name)

    def parse(self, text: str) -> PowerMode:
        """The mode written as ``12c/2201/1300/3199`` (cores, MHz of CPU, GPU and memory).

        MHz may be rounded down, as `PowerMode` prints it, or exact (``114.75``); "maxn" and "min"
        name the two ends.
        """
        if text.lower() in ("maxn", "min"):
            return self.maximum if text.lower() == "maxn" else self.minimum
        match = re.fullmatch(r"(\d+)c?((?:/\d+(?:\.\d+)?){3})", text.strip())
        if not match:
            raise InvalidInput(
                f"cannot read {text!r} as a mode; write cores/CPU/GPU/memory in MHz, "
                f"as in {self.maximum}"
            )
        wanted = [float(match[1]), *(float(part) for part in match[2][1:].split("/"))]
        values = []
        for mhz, per_mhz, axis in zip(wanted, _PER_MHZ, self.axes, strict=True):
            same = [v for v in axis if v // per_mhz == mhz or v == round(mhz * per_mhz)]
            values.append(same[0] if same else round(mhz * per_mhz))
        mode = PowerMode(*values)
        self.check(mode)
        return mode
