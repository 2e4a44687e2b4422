"""Hours of the day: what changes over a day is one value an hour."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Annotated, Any

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import Range, checked
from powerctl.modes import BoolArray, FloatArray
from powerctl.reading import quoted, read_toml

HOUR_S = 3600.0
_Shape = Annotated[tuple[Annotated[float, Range(0, 1e6)], ...], Range(24, 24)]


def hour_of_day(clock_s: float | FloatArray) -> Any:
    """The hour, 0 to 23, of a clock that is 0 at midnight."""
    return (np.floor_divide(clock_s, HOUR_S) % 24).astype(np.int64)


def shape_of_day(value: str | Sequence[float]) -> FloatArray:
    """Factors of the 24 hours: of a named shape, or given.

    Raises
    ------
    UnknownName, InvalidInput
        Listing the named shapes; unless there are 24 numbers, none negative.
    """
    if isinstance(value, str):
        shapes = read_toml(resources.files("wattfed.client.fleet") / "shapes.toml")
        if value not in shapes:
            raise UnknownName("shape", value, shapes, "; or 24 numbers, one an hour")
        value = shapes[value]
    return np.array(checked("a shape of the day", value, _Shape), dtype=np.float64)


def hours_between(hours: Sequence[int]) -> BoolArray:
    """Which of the 24 hours lie from the first to the second, past midnight if that is smaller."""
    whole = len(hours) == 2 and all(isinstance(h, int) and 0 <= h <= 24 for h in hours)
    if not whole:
        raise InvalidInput(f"hours are [from, to], whole numbers from 0 to 24, got {quoted(hours)}")
    first, last = hours
    hour = np.arange(24)
    if first <= last:
        return (hour >= first) & (hour < last)
    return (hour >= first) | (hour < last)
