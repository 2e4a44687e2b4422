"""What is said over the daemon's socket: one line of JSON asks, one line of JSON answers.

A connection's requests are answered in their order. Whatever is not a request, to the byte, is
answered with ``bad-request``, and the connection is closed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from powerctl.axes import AXES, PowerMode
from powerctl.errors import (
    DeviceUnavailable,
    InvalidInput,
    ModeNotInForce,
    ModeNotInSpace,
    PowerctlError,
)

MAX_REQUEST = 256
"""Bytes of a request's line, its end included; the longest that means something has 99."""

VERBS = ("apply", "hold", "read", "restore")
"""``apply`` sets a mode and makes the connection the board's holder; ``hold`` says that the holder
lives; ``read`` looks; ``restore`` brings back the state found, and ends the hold."""

_HIGHEST = 2**63 - 1


class HeldByAnother(DeviceUnavailable):
    """Another client, or another process, holds the board."""


class NotHeld(ModeNotInForce):
    """The hold has ended, and with it the mode; the message says why."""


_KINDS: dict[str, type[PowerctlError]] = {
    "mode-not-in-space": ModeNotInSpace,
    "mode-not-in-force": ModeNotInForce,
    "not-held": NotHeld,
    "held": HeldByAnother,
    "bad-request": InvalidInput,
    "unavailable": DeviceUnavailable,
}


@dataclass(frozen=True)
class Request:
    """One of the verbs, with the mode if it is ``apply``."""

    verb: str
    mode: PowerMode | None = None

    def encode(self) -> bytes:
        """The line of JSON that asks for it."""
        mode = {} if self.mode is None else {"mode": self.mode.values}
        return encode_line({"verb": self.verb, **mode})


def parse_request(line: bytes) -> Request:
    """Read a line; raises `InvalidInput` for all that is not exactly a request."""
    content = _parse(line)
    verb = content.pop("verb", None)
    mode = content.pop("mode", None)
    if content:
        raise InvalidInput("a request has a verb, and apply a mode; nothing else")
    if not isinstance(verb, str) or verb not in VERBS:
        raise InvalidInput(f"the verbs are {', '.join(VERBS)}")
    if verb != "apply":
        if mode is not None:
            raise InvalidInput(f"{verb} takes no mode")
        return Request(verb)
    if not isinstance(mode, list) or len(mode) != len(AXES) or not all(map(_is_axis_value, mode)):
        raise InvalidInput(f"a mode is four positive integers: {', '.join(AXES)}")
    return Request(verb, PowerMode(*mode))


def _is_axis_value(value: object) -> bool:
    return type(value) is int and 0 < value <= _HIGHEST


def encode_line(content: Mapping[str, Any]) -> bytes:
    """The line of JSON that says a content."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def encode_error(error: Exception) -> bytes:
    """The answer to a request that could not be met."""
    kind = next((k for k, known in _KINDS.items() if type(error) is known), "unavailable")
    return encode_line({"error": kind, "message": str(error)[:4000]})


def parse_reply(line: bytes) -> dict[str, Any]:
    """Read an answer; raises the error that it tells of."""
    content = _parse(line)
    if "error" not in content:
        return content
    raise _KINDS.get(str(content["error"]), DeviceUnavailable)(str(content.get("message")))


def _parse(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode("utf-8"), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a name twice, nested too deeply
        raise InvalidInput("not a line of JSON") from None
    if not isinstance(content, dict):
        raise InvalidInput("not a JSON object")
    return content


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)
