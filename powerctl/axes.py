"""The four axes of a board's power modes, and a mode on them: plain numbers, no arrays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from powerctl.errors import InvalidInput, ModeNotInSpace

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
        cpu, gpu, mem = self.cpu_khz // 1_000, self.gpu_hz // 1_000_000, self.mem_hz // 1_000_000
        return f"{self.cores}c/{cpu}/{gpu}/{mem}"

    @property
    def values(self) -> tuple[int, int, int, int]:
        """The four axis values, in the order of `AXES`."""
        return (self.cores, self.cpu_khz, self.gpu_hz, self.mem_hz)


@dataclass(frozen=True)
class ModeAxes:
    """The values that each axis of a mode can have.

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

    def __contains__(self, mode: PowerMode) -> bool:
        return all(v in axis for v, axis in zip(mode.values, self.axes, strict=True))

    @cached_property
    def maximum(self) -> PowerMode:
        """Every axis at its highest: the MAXN mode."""
        return PowerMode(*(axis[-1] for axis in self.axes))

    @cached_property
    def minimum(self) -> PowerMode:
        """Every axis at its lowest."""
        return PowerMode(*(axis[0] for axis in self.axes))

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

    def nearest(self, mode: PowerMode) -> PowerMode:
        """The mode of the space with the nearest value on every axis (ties go down)."""
        pairs = zip(mode.values, self.axes, strict=True)
        return PowerMode(*(min(axis, key=lambda v: (abs(v - value), v)) for value, axis in pairs))

    def capped(self, limits: Sequence[int | None]) -> PowerMode:
        """The mode in which a busy board runs under a limit per axis; None leaves one uncapped.

        A limit that is no step of an axis means the nearest one, as the kernel takes it when
        nvpmodel writes it: 918 MHz is 921.6 on a Nano, 2000 MHz 2035.2 on a TX2 (public logs of
        ``nvpmodel -q --verbose``, which prints the value asked for beside the one in force).
        """
        wanted = (
            axis[-1] if cap is None else cap for cap, axis in zip(limits, self.axes, strict=True)
        )
        return self.nearest(PowerMode(*wanted))

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
