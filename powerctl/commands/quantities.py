"""Quantities as people write and read them on a command line."""

from __future__ import annotations

import re

from powerctl.errors import InvalidInput

_NUMBER = r"(\d+\.?\d*|\.\d+)"


def parse_duration(text: str, what: str = "duration") -> float:
    """Seconds of a duration such as ``90s``, ``20m``, ``1h30m``; `what` names it in the error."""
    match = re.fullmatch(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?", text.strip())
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    if sum(parts) <= 0:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as 90s, 20m or 1h30m")
    hours, minutes, seconds = parts
    return 3600 * hours + 60 * minutes + seconds


def parse_minibatch_time(text: str, what: str) -> float:
    """Seconds of the time of a minibatch, such as ``80ms``, ``0.08s`` or ``0.08``."""
    match = re.fullmatch(rf"{_NUMBER}\s*(ms|s)?", text.strip())
    if not match or not float(match[1]) > 0:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as 80ms or 0.08")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def spoken_duration(seconds: float) -> str:
    """A duration for people, in two units at most: ``1 h 30 min``, ``6 min 12 s``, ``8.3 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def parse_fraction(text: str, what: str) -> float:
    """The fraction written as ``2%`` or ``0.02``."""
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as 2% or 0.02") from None


def parse_sizes(text: str, what: str) -> tuple[int, ...]:
    """The batch sizes written as ``1,4,16``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InvalidInput(f"cannot read {what} {text!r}; write batch sizes such as 1,4,16")
    return tuple(dict.fromkeys(int(part) for part in parts))
