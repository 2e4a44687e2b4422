"""What can stand in a field of a record that comes from another host, declared in its type.

    examples: Count

says that `examples` is a whole number from 0 to 1e9; `checked` holds a value to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from powerctl.errors import InvalidInput
from powerctl.plans import FRONT_POINTS


@dataclass(frozen=True)
class Range:
    """The least and the most that a number can be, or a text or a list long.

    `unbounded` allows infinity above that (no limit), `unknown` NaN (not known).
    """

    least: float
    most: float
    unbounded: bool = False
    unknown: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in it."""
        return (
            self.least <= value <= self.most
            or (self.unbounded and value == math.inf)
            or (self.unknown and value != value)
        )

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}"


MOST_CLIENTS = 10_000_000  # policies keep some hundred bytes for each number up to the highest

ClientNumber = Annotated[int, Range(0, MOST_CLIENTS - 1)]
ClientCount = Annotated[int, Range(1, MOST_CLIENTS)]
Count = Annotated[int, Range(0, 1e9)]
Seconds = Annotated[float, Range(0, 1e9)]
Joules = Annotated[float, Range(0, 1e12)]
Watts = Annotated[float, Range(0, 1e6)]
Clock = Annotated[float, Range(0, 1e15)]  # of many rounds
Pull = Annotated[float, Range(0, 1e9)]  # of FedProx
MostSeconds = Annotated[float, Range(0, 1e9, unbounded=True)]
MostJoules = Annotated[float, Range(0, 1e12, unbounded=True)]
MostWatts = Annotated[float, Range(0, 1e6, unbounded=True)]
LeftJoules = Annotated[float, Range(-1e12, 1e12, unbounded=True)]  # who is blind to it overdraws
Cost = Annotated[float, Range(1e-9, 1e9)]  # seconds or joules of a minibatch, which is not free
Costs = Annotated[tuple[Cost, ...], Range(0, FRONT_POINTS)]
Axis = Annotated[int, Range(0, 1e12)]  # of a mode
Axes = Annotated[tuple[Axis, ...], Range(0, 4 * FRONT_POINTS)]
Loss = Annotated[float, Range(-1e39, 1e39, unknown=True)]  # below 0 as the task has it
RootMeanSquare = Annotated[float, Range(0, 1e39)]
Text = Annotated[str, Range(0, 1000)]
Texts = Annotated[tuple[Annotated[str, Range(0, 100)], ...], Range(0, 1000)]
LabelCounts = Annotated[tuple[Annotated[float, Range(-1e9, 1e9)], ...], Range(0, 10_000)]

_KINDS: dict[Any, tuple[type, ...]] = {float: (float, int), tuple: (list, tuple)}


def checked(name: str, value: Any, hint: Any) -> Any:
    """A value that is of a type, and in the range that is declared there; lists become tuples.

    Raises
    ------
    InvalidInput
        Naming the field, what it is and what it may be.
    """
    range_: Range | None = None
    if get_origin(hint) is Annotated:
        hint, range_ = get_args(hint)
    kind = get_origin(hint) or hint
    if type(value) not in _KINDS.get(kind, (kind,)):
        raise InvalidInput(f"{name} is {type(value).__name__} and must be {kind.__name__}")
    if range_ is not None:
        is_number = kind in (int, float)
        if not range_.holds(value if is_number else len(value)):
            what = "is" if is_number else "has a length of"
            told = _printed(value) if is_number else len(value)
            raise InvalidInput(f"{name} {what} {told} and must be {range_}")
    if kind is str and not value.isprintable():
        raise InvalidInput(f"{name} is not printable text in one line")
    if kind is tuple:
        return tuple(checked(name, one, get_args(hint)[0]) for one in value)
    return value


def one_line(text: str | None) -> str:
    """What another host says went wrong, as it can stand in a line of the log."""
    return "".join(letter if letter.isprintable() else " " for letter in (text or "")[:1000])


def _printed(value: float) -> str:
    """A number, also one of thousands of digits, which Python refuses to print."""
    return f"{value:g}" if abs(value) < 1e300 or isinstance(value, float) else "beyond 1e300"
