"""Logs of JSON lines that survive kill -9 and power loss: each line synced, and resumable.

A log is written for minutes to hours, unattended, and the board may lose power in the middle. So a
line is on the disc before the next begins; a last line that was not finished is left out, and who
opens the log again goes on from what is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar

from powerctl.durable import sync_folder
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.reading import RESULTS, parse_json, quoted, read_bytes

Header = TypeVar("Header")
Entry = TypeVar("Entry")
AnyLog = TypeVar("AnyLog", bound="JsonLog[Any, Any]")


class JsonLog(ABC, Generic[Header, Entry]):
    """What a log is of, in its first line, and then an entry a line; in memory and on disc.

    `open` to go on with one, `read` to look at one.

    Attributes
    ----------
    path : Path
        The file.
    header : Header
        What the log is of.
    entries : tuple of Entry
        All so far, in their order.
    """

    FORMAT: ClassVar[str]
    COMMAND: ClassVar[str]
    VERSION: ClassVar[int] = 1

    def __init__(
        self,
        path: Path,
        header: Header,
        entries: Sequence[Entry] = (),
        file: FileIO | None = None,
    ) -> None:
        self.path = path
        self.header = header
        self._entries = list(entries)
        self._file = file

    @classmethod
    def open(cls: type[AnyLog], path: str | Path, header: Any) -> AnyLog:
        """Begin a log, or go on with the one that the file holds; close it, or use ``with``.

        Parameters
        ----------
        path : str or Path
            The file, made if there is none. Locked until the log is closed.
        header : Header
            What the entries will be of. A log that exists must be of the same.

        Raises
        ------
        InvalidInput
            If the file cannot be written, is no such log, is of something else or of a newer
            version, or another process is writing it.
        InvalidTable
            If a line of it is damaged; an unfinished last line is not, it is cut off.
        """
        path = Path(path)
        file = _open_locked(path)
        try:
            content = file.readall()
            if _is_begun(content, cls.FORMAT):
                file.truncate(0)
                file.seek(0)
                first = {"format": cls.FORMAT, "version": cls.VERSION, **cls.header_json(header)}
                _write_line(file, 0, first, path)
                sync_folder(path)
                return cls(path, header, (), file)
            found, entries, length = cls._parse(content, path)
            cls.check_same(found, header, path)
            file.truncate(length)
            file.seek(length)
            return cls(path, found, entries, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def read(cls: type[AnyLog], path: str | Path) -> AnyLog:
        """Read a log, also one that is being written; an unfinished last line is left out.

        Raises
        ------
        InvalidInput
            If the file cannot be read, is no such log, or is of a newer version.
        InvalidTable
            Naming file and line, if one is damaged.
        """
        path = Path(path)
        header, entries, _ = cls._parse(read_bytes(path, RESULTS), path)
        return cls(path, header, entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries so far, in their order."""
        return tuple(self._entries)

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on the disc when this returns."""
        if self._file is None:
            raise InvalidInput(f"{self.path}: the log is not open for writing")
        _write_line(self._file, self._file.tell(), self.entry_json(entry), self.path)
        self._entries.append(entry)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self: AnyLog) -> AnyLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    @abstractmethod
    def header_json(header: Header) -> Mapping[str, Any]:
        """The first line, without format and version."""

    @staticmethod
    @abstractmethod
    def parse_header(content: dict[str, Any], where: str) -> Header:
        """The header of a first line, or what `InvalidInput` says is wrong with it."""

    @staticmethod
    @abstractmethod
    def check_same(found: Header, wanted: Header, path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, if a log cannot go on with this header."""

    @staticmethod
    @abstractmethod
    def entry_json(entry: Entry) -> Mapping[str, Any]:
        """The line of an entry that is added now."""

    @staticmethod
    @abstractmethod
    def parse_entry(content: dict[str, Any], where: str) -> Entry:
        """The entry of a line, or what `InvalidInput` says is wrong with it."""

    @classmethod
    def _parse(cls, content: bytes, path: Path) -> tuple[Header, list[Entry], int]:
        """Header, entries, and the length of the lines that are whole."""
        lines, length = _whole_lines(content)
        header = cls._read_header(lines, f"{path}, line 1")
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            where = f"{path}, line {number}: damaged"
            try:
                entries.append(cls.parse_entry(parse_json(line, where), where))
            except InvalidInput as error:
                raise InvalidTable(str(error)) from None
        return header, entries, length

    @classmethod
    def _read_header(cls, lines: Sequence[bytes], where: str) -> Header:
        try:
            content = parse_json(lines[0], where)
            if content.pop("format") != cls.FORMAT:
                raise KeyError("format")
            version = content.pop("version")
        except (InvalidInput, LookupError, TypeError, AttributeError):
            raise InvalidInput(f"{where}: not a log of {cls.COMMAND}") from None
        if version != cls.VERSION:
            raise InvalidInput(
                f"{where}: the log has version {quoted(version)}, this powerctl reads "
                f"{cls.VERSION}; install a newer one, or write to another file"
            )
        return cls.parse_header(content, where)


def _open_locked(path: Path) -> FileIO:
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


def _write_line(file: FileIO, at: int, content: Mapping[str, Any], path: Path) -> None:
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


def _is_begun(content: bytes, format_name: str) -> bool:
    """Whether there is nothing but, at most, the beginning of a log's first line."""
    start = f'{{"format": "{format_name}"'.encode()
    return b"\n" not in content and content[: len(start)] == start[: len(content)]


def _whole_lines(content: bytes) -> tuple[list[bytes], int]:
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
