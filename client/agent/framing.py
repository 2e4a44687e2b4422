"""Frames of the gate's socket: a message after its length."""

from __future__ import annotations

import struct
from typing import Protocol

LENGTH = struct.Struct("<I")
LONGEST = 1 << 16
SUFFIX = ".gate"  # of the gate's socket, after the name of the agent's


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


def framed(message: _Message) -> bytes:
    """The bytes of a message."""
    data = message.SerializeToString()
    return LENGTH.pack(len(data)) + data
