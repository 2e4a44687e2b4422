"""Columns: one number per client, given in a fleet file as a number, a list or a distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.modes import FloatArray
from powerctl.reading import in_line, quoted

_Kind = TypeVar("_Kind", bound="FleetColumns")
_MOST = 1e15  # seconds, joules or watts: no device lives to see more
_UNIFORM, _LOGNORMAL = {"low", "high", "seed"}, {"median", "sigma", "seed"}


def number_column(default: float, *, above: float = -math.inf, least: float = -math.inf) -> Any:
    """A field of `FleetColumns`: its value where it is left out, and what it may be.

    Parameters
    ----------
    default : float
        Where a fleet file leaves it out; where that is infinite, all may be.
    above, least : float
        Values are above the one and at least the other.
    """
    return field(metadata={"default": default, "above": above, "least": least})


@dataclass(frozen=True, eq=False)
class FleetColumns:
    """Arrays with one row per client; subclasses name them with `number_column`."""

    @classmethod
    def read(cls: type[_Kind], table: Mapping[str, Any], count: int) -> _Kind:
        """The columns of a group of so many clients from its table in a fleet file."""
        check_keys(table, {f.name for f in fields(cls)})
        return cls(**cls.numbers(table, count))

    @classmethod
    def numbers(cls, table: Mapping[str, Any], count: int) -> dict[str, FloatArray]:
        """The fields that are numbers, read and checked."""
        found = {}
        for one in fields(cls):
            if "default" in one.metadata:
                values = column(one.name, table.get(one.name, one.metadata["default"]), count)
                found[one.name] = _checked(one.name, values, **one.metadata)
        return found

    @classmethod
    def joined(cls: type[_Kind], parts: Sequence[_Kind]) -> _Kind:
        """The rows of all parts, in their order."""
        names = [f.name for f in fields(cls)]
        return cls(**{n: joined_rows([getattr(part, n) for part in parts]) for n in names})


def joined_rows(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The rows of some columns, one after the other; in memory once where all are the same one."""
    first = parts[0][:1]
    if all(part.strides[0] == 0 and np.array_equal(part[:1], first) for part in parts):
        return np.broadcast_to(first, (sum(map(len, parts)), *first.shape[1:]))
    return np.concatenate(parts)


def check_keys(table: Mapping[str, Any], known: set[str]) -> None:
    """Raise `InvalidInput` for a key that is not known."""
    if not isinstance(table, Mapping):
        raise InvalidInput(f"expected a table with {', '.join(sorted(known))}, got {quoted(table)}")
    unknown = set(table) - known
    if unknown:
        raise InvalidInput(
            f"unknown {in_line(', '.join(sorted(unknown)))}; keys are {', '.join(sorted(known))}"
        )


def column(name: str, value: Any, count: int) -> FloatArray:
    """One value for all, a list with one each, or a distribution with a seed.

    Distributions are ``{low, high, seed}``, uniform, and ``{median, sigma, seed}``, lognormal with
    sigma the standard deviation of the logarithm.
    """
    if isinstance(value, Mapping):
        return _drawn(name, value, count)
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and len(values) != count:
        raise InvalidInput(f"{name} lists {len(values)} values for {count} clients")
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise InvalidInput(f"{name} must be numbers, got {quoted(value)}")
    return np.broadcast_to(np.array(values, dtype=np.float64), count)


def _drawn(name: str, value: Mapping[str, Any], count: int) -> FloatArray:
    if set(value) not in (_UNIFORM, _LOGNORMAL):
        raise InvalidInput(
            f"{name}: a distribution is {{low, high, seed}} or {{median, sigma, seed}}, "
            f"got {quoted(dict(value))}"
        )
    check_whole(f"{name}: seed", value["seed"], least=0)
    rng = np.random.default_rng(value["seed"])
    given = {key: checked(f"{name}: {key}", value[key], float) for key in value}
    if "low" in given:
        return rng.uniform(given["low"], given["high"], count)
    with np.errstate(over="ignore"):  # what is not finite is refused with its range
        return np.asarray(given["median"] * np.exp(given["sigma"] * rng.standard_normal(count)))


def check_whole(name: str, value: Any, least: int, most: int = 2**63) -> None:
    """Raise `InvalidInput` unless a value is a whole number of at least and at most so much."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        top = "" if most == 2**63 else f", at most {most:,}"
        raise InvalidInput(
            f"{name} must be a whole number of at least {least}{top}, got {quoted(value)}"
        )


def _checked(
    name: str, values: FloatArray, above: float, least: float, default: float
) -> FloatArray:
    most = math.inf if default == math.inf else _MOST
    fits = (values > above) & (values >= least) & ((values <= _MOST) | (values == most))
    wrong = values[~fits]
    if len(wrong):
        bound = "positive" if above == 0 else f"at least {least:g}"
        raise InvalidInput(f"{name} must be {bound} and at most {_MOST:g}, got {wrong[0]:g}")
    return values
