"""What can stand in a field of a file of others, declared in its type, and held to it in one place.

    time_s: Annotated[float, Range(0, 1e9)]

says that `time_s` is a number of that range; `build` makes a dataclass of a table of plain values.
Without a range, numbers are finite and far from where their products overflow.
"""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from powerctl.errors import InvalidInput
from powerctl.reading import in_line, quoted

Made = TypeVar("Made")


@dataclass(frozen=True)
class Range:
    """The least and the most that a number can be, or a text or a list long.

    `unbounded` allows infinity above that (no limit), `unknown` NaN (not known); `whole` allows no
    fractions, and `printable` no text of several lines.
    """

    least: float
    most: float
    unbounded: bool = False
    unknown: bool = False
    whole: bool = False
    printable: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is in this range, or one of its exceptions."""
        return (
            (self.least <= value <= self.most and not (self.whole and value % 1))
            or (self.unbounded and value == math.inf)
            or (self.unknown and value != value)
        )

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}{' without a fraction' if self.whole else ''}"


Amount = Annotated[float, Range(0, 1e20)]
"""Of FLOP, bytes, cycles, seconds or watts: beyond all that there is, and its square is finite."""
Positive = Annotated[float, Range(1e-9, 1e20)]
Count = Annotated[int, Range(0, 1e9)]
Size = Annotated[int, Range(1, 1e9)]
"""Of a minibatch."""
Measured = Annotated[float, Range(0, 1e20, unknown=True)]
"""What a meter says, where there was one."""

_USUAL: dict[Any, Range] = {
    int: Range(-(2**63), 2**63),
    float: Range(-1e30, 1e30),
    str: Range(0, 10_000),
}
_CALLED = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def build(
    kind: type[Made], values: object, where: str, ignored: Collection[str] | None = ()
) -> Made:
    """A dataclass of the values of a table in a file, each of its type and in its range.

    Parameters
    ----------
    kind : type
        The dataclass; a field may be another.
    values : object
        What the file holds there.
    where : str
        File and place.
    ignored : collection of str, optional
        Keys that are no fields; None: all of them.

    Raises
    ------
    InvalidInput
        Naming the key, what it is and what it may be; or a key that is missing or not known.
    """
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{where}: expected a table, got {quoted(values)}")
    known = {item.name: item for item in fields(cast(Any, kind)) if item.init}
    unknown = [key for key in values if key not in known and key not in (ignored or ())]
    if unknown and ignored is not None:
        names = in_line(", ".join(sorted(map(str, unknown))))
        raise InvalidInput(f"{where}: unknown {names}; known: {', '.join(sorted(known))}")
    hints, found = _hints(cast(Any, kind)), {}
    for name, item in known.items():
        if name in values:
            found[name] = checked(f"{where}: {name}", values[name], hints[name])
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InvalidInput(f"{where}: no {name}")
    try:
        return kind(**found)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def checked(name: str, value: Any, hint: Any) -> Any:
    """A value that is of a type, and in the range that is declared there; lists become tuples.

    Raises
    ------
    InvalidInput
        Naming the field, what it is and what it may be.
    """
    if hint is Any:
        return value
    range_: Range | None = None
    if get_origin(hint) is Annotated:
        hint, range_ = get_args(hint)
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        kinds = [one for one in get_args(hint) if one is not type(None)]
        if value is None and len(kinds) < len(get_args(hint)):
            return None
        exact = [one for one in kinds if type(value) is one]
        return checked(name, value, (exact or kinds)[0])
    if kind is Literal:
        if value not in get_args(hint):
            raise wrong(name, value, " or ".join(map(repr, get_args(hint))))
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, name)
    if issubclass(kind, Collection) and kind is not str:
        return _collection(name, value, hint, range_)
    if type(value) not in ((float, int) if kind is float else (kind,)):
        raise wrong(name, value, _CALLED[kind])
    range_ = range_ or _USUAL.get(kind)
    if range_ is not None and not range_.holds(len(value) if kind is str else value):
        length = " characters" if kind is str else ""
        raise wrong(name, value, f"{_CALLED[kind]} of {range_}{length}")
    if kind is str and range_ and range_.printable and not value.isprintable():
        raise wrong(name, value, "printable text in one line")
    return value


def _collection(name: str, value: Any, hint: Any, range_: Range | None) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            raise wrong(name, value, "a table")
        each = inner[1] if inner else Any
        return {key: checked(f"{name}.{key}", one, each) for key, one in value.items()}
    if not isinstance(value, list | tuple):
        raise wrong(name, value, "a list")
    if kind is tuple and inner and inner[-1] is not ...:
        range_ = Range(len(inner), len(inner))
    if range_ is not None and not range_.holds(len(value)):
        raise InvalidInput(f"{name} is a list of {len(value)} and must be of {range_}")
    each = inner[0] if inner else Any
    return tuple(checked(f"{name}, {n}", one, each) for n, one in enumerate(value, start=1))


def wrong(name: str, value: object, wanted: str) -> InvalidInput:
    """The error for a value that is not what it may be."""
    return InvalidInput(f"{name} is {quoted(value)} and must be {wanted}")


def parse_number(name: str, text: str, hint: Any) -> Any:
    """The number that a text is, as in a cell of a table; of a type, and in its range."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    try:
        value = kind(text)
    except ValueError:
        raise wrong(name, text, _CALLED[kind]) from None
    return checked(name, value, hint)


def check_name(text: str, what: str, also: str = "") -> str:
    """A name that is to be one of a file or folder, and cannot lead out of where it is put.

    Parameters
    ----------
    text : str
        Of letters, digits and ``-_.``, no dot first.
    what : str
        For the message.
    also : str
        Other characters that it may have.

    Raises
    ------
    InvalidInput
        If it is no such name, or has more than the 200 bytes that leave room for an ending.
    """
    plain = all(c.isalnum() or c in f"-_.{also}" for c in text)
    if not (plain and text) or text.startswith(".") or len(text.encode()) > 200:
        allowed = " ".join(f"-_.{also}")
        raise InvalidInput(
            f"{what} {quoted(text)} is no name: letters, digits and {allowed} between them, at "
            "most 200 bytes"
        )
    return text
