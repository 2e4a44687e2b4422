"""Frames of a local socket: each message after its length, four bytes, the lowest first."""

from __future__ import annotations

import struct

_LENGTH = struct.Struct("<I")
LONGEST = 1 << 16  # bytes of a message; those of the gate and of batches have a few hundred
GATE_SUFFIX = ".gate"  # of the gate's socket, after the name of the agent's


def framed(data: bytes) -> bytes:
    """The frame of a message's bytes; raises `ValueError` if it is too long."""
    if len(data) > LONGEST:
        raise ValueError(f"a message of {len(data)} bytes: at most {LONGEST}")
    return _LENGTH.pack(len(data)) + data


class FrameBuffer:
    """Takes frames out of bytes as they come, in pieces of any size."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def add(self, data: bytes) -> None:
        """Take bytes that have come, of any frames."""
        self._unread += data

    def next(self) -> bytes | None:
        """The next message, None if it has not all come; raises `ValueError` if it is too long."""
        if len(self._unread) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._unread)
        if length > LONGEST:
            raise ValueError(f"a frame of {length} bytes; at most {LONGEST}")
        end = _LENGTH.size + length
        if len(self._unread) < end:
            return None
        message = bytes(self._unread[_LENGTH.size : end])
        del self._unread[:end]
        return message
