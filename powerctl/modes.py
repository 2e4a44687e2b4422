"""Power modes and the space of all modes of a board: four axes, sub-grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from powerctl.axes import AXES as AXES
from powerctl.axes import ModeAxes
from powerctl.axes import PowerMode as PowerMode
from powerctl.errors import InvalidInput, ModeNotInSpace

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


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

    def objects(self) -> Iterator[PowerMode]:
        """All of them, one by one."""
        return map(PowerMode, *(axis.tolist() for axis in self))

    def mode(self, index: int) -> PowerMode:
        """One of the modes as an object."""
        return PowerMode(*(int(axis[index]) for axis in self))


@dataclass(frozen=True)
class ModeSpace(ModeAxes):
    """All combinations of the values of its axes.

    Modes are numbered with memory running fastest and cores slowest (C order), and are kept as
    arrays: the 29,232 modes of an AGX Xavier are made in about a millisecond.
    """

    def __len__(self) -> int:
        return int(np.prod(self.shape))

    def __iter__(self) -> Iterator[PowerMode]:
        return self.arrays.objects()

    @cached_property
    def arrays(self) -> ModeArrays:
        """Every mode, in the order of the numbering; arrays of shape (len(self),)."""
        grids = np.meshgrid(*(np.array(a, dtype=np.int64) for a in self.axes), indexing="ij")
        return ModeArrays(*(grid.ravel() for grid in grids))

    def mode(self, index: int) -> PowerMode:
        """The mode of a number in ``range(len(self))``."""
        if not 0 <= index < len(self):
            raise InvalidInput(f"mode number {index} is not in 0..{len(self) - 1} of {self.name}")
        at = np.unravel_index(index, self.shape)
        return PowerMode(*(axis[int(i)] for axis, i in zip(self.axes, at, strict=True)))

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
