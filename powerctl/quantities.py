"""Quantities as people write and read them on a command line: ``50ms``, ``2kJ``, ``25W``, ``5%``.

A number without a unit is taken where only one meaning is likely, and else refused with the two
that are: times are written in ms everywhere, so that 50 may mean 50 ms as well as 50 s, while 0.05
can only be seconds (the fastest minibatch that was measured takes a millisecond).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from powerctl.errors import InvalidInput

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_PART = rf"({_NUMBER})\s*([a-zA-Zµ%/]+)\s*"
_TIMES = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True)
class _Kind:
    """The units in which people write a kind of quantity, and what a bare number means.

    Attributes
    ----------
    units : mapping of str to float
        What each unit is of the one that is used inside: s, W, J, 1/s, 1.
    examples : str
    likely : tuple of str
        What a bare number from 1 on may mean; one below is, like all where this is empty, of the
        unit that is used inside.
    zero : bool
        Whether it may be 0.
    """

    units: Mapping[str, float]
    examples: str
    likely: tuple[str, ...] = ()
    zero: bool = False


_KINDS = {
    "time": _Kind(_TIMES, "50ms, 1.5s", ("ms", "s")),
    "duration": _Kind(_TIMES, "90s, 20m, 1h30m", ("s", "m")),
    "seconds": _Kind(_TIMES, "2, 500ms, 1m"),
    "power": _Kind({"kW": 1e3, "W": 1.0, "mW": 1e-3}, "25W, 0.8kW"),
    "energy": _Kind(
        {"kWh": 3.6e6, "MJ": 1e6, "Wh": 3600.0, "kJ": 1e3, "J": 1.0, "mJ": 1e-3}, "800mJ, 30J, 2kJ"
    ),
    "rate": _Kind({"kHz": 1e3, "/s": 1.0, "Hz": 1.0, "/min": 1 / 60}, "30/s, 30Hz, 90/min"),
    "share": _Kind({"%": 0.01}, "2%, 0.02", ("%",), zero=True),
}


def parse(text: str, kind: str, what: str) -> float:
    """A quantity that a person wrote, in s, W, J, 1/s or as a share of 1.

    Parameters
    ----------
    text : str
        A number with its unit, or several from large to small: ``1h30m``.
    kind : {"time", "duration", "seconds", "power", "energy", "rate", "share"}
        The first is short, of a minibatch or a request; the second is of what people wait for; the
        third has a name that says what a bare number is.
    what : str
        The option or key, for the message.

    Raises
    ------
    InvalidInput
        For what is no such quantity, not finite, below 0, or 0 where it must not be; for a bare
        number that may mean two things, which the message names.
    """
    known, text = _KINDS[kind], text.strip()
    if re.fullmatch(_NUMBER, text):
        if known.likely and 1 <= float(text) < math.inf:
            meant = " or ".join(f"{text}{unit}" for unit in known.likely)
            raise InvalidInput(f"{what} {text}: {meant}? write the unit")
        parts = [float(text)]
    else:
        found = re.findall(_PART, text) if re.fullmatch(f"(?:{_PART})+", text) else []
        factors = [known.units.get(unit, math.nan) for _, unit in found]
        parts = [float(number) * factor for (number, _), factor in zip(found, factors, strict=True)]
        if not parts or any(after >= factor for factor, after in pairwise(factors)):
            parts = [math.nan]
    total = sum(parts)
    if not math.isfinite(total) or not (total or known.zero):
        noun = "duration" if kind == "seconds" else kind
        least = "of at least 0" if known.zero else "above 0"
        raise InvalidInput(f"cannot read {what} {text!r}: write a {noun} {least}: {known.examples}")
    return total


_PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6}


def spoken(value: float, unit: str, digits: int = 3) -> str:
    """A quantity for people: ``49.7 ms``, ``6 min 12 s``, ``2.39 kJ``.

    Times of a minute and more are in two units.

    Parameters
    ----------
    value : float
        In the unit.
    unit : str
        ``"s"``, ``"W"``, ``"J"``, or any other that takes the prefixes of the SI.
    digits : int
        So many count; zeros at the end are left out.
    """
    if not value or not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value:g} {unit}"
    if unit == "s" and value >= 59.95:
        whole = round(value)
        if whole < 3600:
            return f"{whole // 60} min {whole % 60} s"
        minutes = round(value / 60)
        return f"{minutes // 60} h {minutes % 60} min"
    size = float(f"{abs(value):.{digits}g}") * (1 + 1e-9)  # 999.7 is a thousand
    most = 1.0 if unit == "s" else math.inf
    prefix = next((p for p, factor in _PREFIXES.items() if factor <= min(size, most)), "µ")
    return f"{rounded(value / _PREFIXES[prefix], digits)} {prefix}{unit}"


def rounded(value: float, digits: int) -> str:
    """A number of so many digits that count, and without an exponent up to ten million."""
    if not 10**digits - 0.5 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    return f"{value:.0f}"


def time_unit(times_s: Iterable[float]) -> tuple[str, float]:
    """The unit of a column of times, and how many are a second: s where one takes 10 s, else ms."""
    is_long = any(9.9995 <= time_s < math.inf for time_s in times_s)
    return ("s", 1.0) if is_long else ("ms", 1e3)
