"""Logs of JSON lines that survive kill -9 and power loss: one writer, each line synced, resumable.

A profile or a study takes minutes to hours, unattended, and the board may lose power in the middle.
So an entry is on the disc, synced, before the next begins, and a log that is opened again goes on
where it ended: a last line that was not finished is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar

from powerctl.durable import sync_folder
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.fields import build
from powerctl.reading import RESULTS, parse_json, quoted, read_bytes


class LogHeader(ABC):
    """What all entries of a log have in common: its first line; a dataclass."""

    @abstractmethod
    def check_same(self, other: Any, path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, unless both are of the same."""


Header = TypeVar("Header", bound=LogHeader)
Entry = TypeVar("Entry")
Log = TypeVar("Log", bound="JsonLog[Any, Any]")


class JsonLog(ABC, Generic[Header, Entry]):
    """Entries in memory and as lines of a file: `open` to go on with one, `read` to look at one.

    Attributes
    ----------
    format, version, command : str, int, str
        What the first line names, and which command of powerctl writes such logs.
    header_type : type
        Of `header`.
    path : Path
    header : LogHeader
    """

    format: ClassVar[str]
    version: ClassVar[int]
    command: ClassVar[str]
    header_type: ClassVar[type[Any]]

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

    @staticmethod
    @abstractmethod
    def _parse_entry(content: Any, where: str) -> Any:
        """The entry of a line; raises `InvalidInput`."""

    @staticmethod
    @abstractmethod
    def _entry_json(entry: Any) -> dict[str, Any]:
        """The line of an entry."""

    @staticmethod
    @abstractmethod
    def _key(entry: Any) -> Hashable:
        """What no two entries have in common."""

    @classmethod
    def open(cls: type[Log], path: str | Path, header: LogHeader) -> Log:
        """Begin a log, or go on with the one that the file holds; close it, or use ``with``.

        Parameters
        ----------
        path : str or Path
            The file, made if there is none. Locked until the log is closed.
        header : LogHeader
            What the entries will be of. A log that exists must be of the same.

        Raises
        ------
        InvalidInput
            If the file cannot be written, is no such log, is of something else or of a newer
            version, or somebody else is writing it.
        InvalidTable
            If a line of it is damaged; an unfinished last line is not, it is cut off.
        """
        path = Path(path)
        file = _open_locked(path)
        try:
            content = file.readall()
            if _is_begun(content, cls.format):
                file.truncate(0)
                file.seek(0)
                first = {"format": cls.format, "version": cls.version, **asdict(header)}  # type: ignore[call-overload]
                _write_line(file, 0, first, path)
                sync_folder(path)
                return cls(path, header, (), file)
            found, entries, length = cls._parse(content, path)
            found.check_same(header, path)
            file.truncate(length)
            file.seek(length)
            return cls(path, found, entries, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def read(cls: type[Log], path: str | Path) -> Log:
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
    def entries(self) -> Sequence[Entry]:
        """All entries, in the order in which they were added."""
        return tuple(self._entries)

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on the disc when this returns."""
        if self._file is None:
            raise InvalidInput(f"{self.path}: the log is not open for writing")
        _write_line(self._file, self._file.tell(), self._entry_json(entry), self.path)
        self._entries.append(entry)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self: Log) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def _parse(cls, content: bytes, path: Path) -> tuple[Any, list[Any], int]:
        """Header, entries, and the length of the lines that are whole."""
        lines, length = _whole_lines(content)
        header = cls._parse_header(lines, f"{path}, line 1")
        entries: list[Any] = []
        seen: dict[Hashable, int] = {}
        for number, line in enumerate(lines[1:], start=2):
            where = f"{path}, line {number}"
            damaged = f"{where}: damaged"
            try:
                entry = cls._parse_entry(parse_json(line, damaged), damaged)
            except InvalidInput as error:
                raise InvalidTable(str(error)) from None
            first = seen.setdefault(cls._key(entry), number)
            if first != number:
                raise InvalidTable(f"{where}: the measurement of line {first} again")
            entries.append(entry)
        return header, entries, length

    @classmethod
    def _parse_header(cls, lines: list[bytes], where: str) -> Any:
        try:
            content = parse_json(lines[0], where)
            if content.pop("format") != cls.format:
                raise KeyError("format")
            version = content.pop("version")
        except (InvalidInput, KeyError, TypeError, AttributeError, IndexError):
            raise InvalidInput(f"{where}: not a log of powerctl {cls.command}") from None
        if version != cls.version:
            raise InvalidInput(
                f"{where}: the log has version {quoted(version)}, this powerctl reads "
                f"{cls.version}; install a newer one, or write to another file"
            )
        try:
            return build(cls.header_type, content, f"{where}: the header is damaged", ignored=None)
        except InvalidInput as error:
            raise InvalidTable(str(error)) from None


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


def _write_line(file: FileIO, at: int, content: dict[str, Any], path: Path) -> None:
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
