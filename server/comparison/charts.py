"""The geometry of line charts: scales, ticks, mean lines and bands; the template draws them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray
from wattfed.strategies.target import Target

_GRID = 160  # points of a mean line
_LONGEST_SLUG = 60


@dataclass(frozen=True)
class Series:
    """A named line with a band around it; arrays of shape (n,)."""

    name: str
    x: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Drawn:
    """A series as SVG paths."""

    name: str
    line: str
    band: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in the chart's units, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart in a view of `width` x `height`, its plot inside `left`, `top`, `right`, `bottom`.

    `source` is what its series were drawn from.
    """

    title: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    series: tuple[Drawn, ...]
    source: tuple[Series, ...] = ()
    width: int = 400
    height: int = 270
    left: int = 40
    top: int = 10
    right: int = 390
    bottom: int = 232

    @property
    def slug(self) -> str:
        """What a file of it is called."""
        return slug(self.title)


def slug(text: str) -> str:
    """A text as part of the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[-_LONGEST_SLUG:].strip("-")


def range_of(
    series: Sequence[Series], marks: Sequence[float], target: Target
) -> tuple[float, float]:
    """The axis of a target metric: accuracies up to 1, all others as far as lines and marks go."""
    lowest = min((float(s.low.min()) for s in series), default=0.0)
    highest = max((float(s.high.max()) for s in series), default=1.0)
    if target == Target() and lowest >= 0 and highest <= 1:
        return math.floor(10 * lowest) / 10, 1.0
    low, high = min(lowest, *marks, highest), max(highest, *marks, lowest)
    step = 10.0 ** math.floor(math.log10(high - low or abs(high) or 1.0))
    return step * math.floor(low / step), step * (math.floor(high / step) + 1)


def mean_of_curves(name: str, curves: Sequence[tuple[FloatArray, FloatArray]]) -> Series:
    """The mean over seeds of a value over x, and the band from the lowest seed to the highest.

    A run that has ended keeps its last value.
    """
    end = max(float(x[-1]) for x, _ in curves)
    grid = np.linspace(0.0, end, _GRID)
    values = np.array([np.interp(grid, x, y) for x, y in curves])
    return Series(name, grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def line_chart(
    title: str,
    x_label: str,
    series: Sequence[Series],
    y_range: tuple[float, float],
    marks: Sequence[float] = (),
) -> Chart:
    """A chart from x = 0 to the longest series, with a horizontal line at each mark."""
    empty = Chart(title, x_label, (), (), (), ())
    x_end = max((float(s.x[-1]) for s in series), default=1.0) or 1.0
    y_low, y_high = y_range
    x_scale = (empty.right - empty.left) / x_end
    y_scale = (empty.bottom - empty.top) / (y_high - y_low)

    def place(x: FloatArray, y: FloatArray) -> list[str]:
        across = empty.left + x * x_scale
        down = empty.bottom - (y - y_low) * y_scale
        return [f"{a:.1f} {d:.1f}" for a, d in zip(across, down, strict=True)]

    def height(value: float) -> float:
        return round(empty.bottom - (value - y_low) * y_scale, 1)

    drawn = []
    for s in series:
        line = "M" + "L".join(place(s.x, s.mean))
        outline = place(s.x, s.high) + place(s.x[::-1], s.low[::-1])
        drawn.append(Drawn(s.name, line, "M" + "L".join(outline) + "Z"))
    return Chart(
        title,
        x_label,
        tuple(Tick(round(empty.left + t * x_scale, 1), f"{t:,.10g}") for t in ticks(0.0, x_end)),
        tuple(Tick(height(t), _short(t)) for t in ticks(y_low, y_high)),
        tuple(Tick(height(mark), f"{mark:g}") for mark in marks),
        tuple(drawn),
        tuple(series),
    )


def _short(value: float) -> str:
    """A label that has room left of a chart."""
    text = f"{value:,.10g}"
    return text if len(text) <= 5 else f"{value:.3g}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers in a range, about so many: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(n * decade for n in (1, 2, 5, 10) if n * decade >= 0.999 * rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]
