"""Logs of JSON lines that survive kill -9 and power loss: one writer, each line synced, resumable.

A line is on the disc before `write_line` returns; a last line that was not finished is left out by
`whole_lines`, so that whoever opens the log again goes on from what is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Any

from powerctl.errors import InvalidInput
from powerctl.reading import parse_json


def open_locked(path: Path) -> FileIO:
    """The file, opened for reading and writing, made if need be, and locked."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = FileIO(os.open(path, flags, 0o644), "r+")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe or device could be endless
        file.close()
        raise InvalidInput(f"{path}: not a regular file; a log goes on from what it holds")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InvalidInput(
            f"{path}: another profiler is writing this log; wait for it, or write to another file"
        ) from None
    return file


def write_line(file: FileIO, at: int, content: dict[str, Any], path: Path) -> None:
    """Write a line in one piece and sync it; what a full disc took of it is taken back."""
    line = json.dumps(content, allow_nan=False).encode() + b"\n"
    try:
        if file.write(line) != len(line):
            raise OSError("the disc is full")
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(at)
        file.seek(at)
        raise InvalidInput(f"{path}: cannot be written: {error.strerror or error}") from None


def is_begun(content: bytes, format_name: str) -> bool:
    """Whether there is nothing but, at most, the beginning of a log's first line."""
    start = f'{{"format": "{format_name}"'.encode()
    return b"\n" not in content and content[: len(start)] == start[: len(content)]


def whole_lines(content: bytes) -> tuple[list[bytes], int]:
    """The lines that are whole, and their length in bytes with the ends of line."""
    *lines, rest = content.split(b"\n")
    length = len(content) - len(rest)
    if len(lines) > 1 and not rest and not _is_json(lines[-1]):
        # A power loss can keep a line's end and lose its middle: not finished either.
        length -= len(lines.pop()) + 1
    return lines, length


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line, "")
    except InvalidInput:
        return False
    return True
