"""Names with parameters, as people write them: ``NAME(KEY=VALUE, ...)``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from powerctl.errors import InvalidInput, UnknownName


def parsed(what: str, text: str) -> tuple[str, dict[str, str]]:
    """Name and parameters of ``NAME(KEY=VALUE, ...)``; `what` it names is for the error."""
    parts = re.fullmatch(r"([^()]*)(?:\((.*)\))?", text.strip())
    pairs = [p.split("=") for p in (parts[2] or "").split(",") if p.strip()] if parts else [[]]
    if parts is None or any(len(pair) != 2 for pair in pairs):
        raise InvalidInput(f"cannot read the {what} {text!r}; write NAME or NAME(KEY=VALUE, ...)")
    return parts[1].strip(), {key.strip(): value.strip() for key, value in pairs}


def values_of(name: str, given: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters given, each of the kind of its default.

    Raises
    ------
    UnknownName, InvalidInput
        Listing the known parameters, or naming the value that cannot be read.
    """
    values = {}
    for key, text in given.items():
        if key not in known:
            raise UnknownName(f"parameter of {name}", key, known)
        values[key] = _value(f"{name}({key}=...)", text, type(known[key]))
    return values


def _value(what: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise InvalidInput(f"{what}: {text!r} is no {kind.__name__}") from None
