"""The profiler's log on disc: one JSON line a measurement, safe against kill -9 and power loss.

A Jetson is profiled for minutes to hours, unattended, and the board may lose power in the middle.
So a measurement is on the disc, synced, before the next begins, and a log that is opened again
goes on where it ended: a last line that was not finished is cut off.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from powerctl.device import Device
from powerctl.durable import sync_folder
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.fields import Amount, Range, build
from powerctl.json_lines import is_begun, open_locked, whole_lines, write_line
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, PowerMode
from powerctl.profiler import Procedure, ProfiledMode
from powerctl.reading import RESULTS, parse_json, quoted, read_bytes
from powerctl.workload import Workload

FORMAT = "powerctl-profile"
VERSION = 1

_IDENTITY = ("board", "l4t", "workload", "kind", "device", "procedure")
_Axis = Annotated[int, Range(1, 1e12)]


@dataclass(frozen=True)
class _Axes:
    """The mode of a line, which is flat."""

    cores: _Axis
    cpu_khz: _Axis
    gpu_hz: _Axis
    mem_hz: _Axis


@dataclass(frozen=True)
class LogHeader:
    """What a log is of: its first line.

    Attributes
    ----------
    board, l4t : str
        The board and the release that its clocks belong to.
    workload, kind : str
        What ran.
    device : str
        Specification that the device was opened by, so that a twin's figures are never taken for
        a Jetson's.
    procedure : Procedure
        How each mode was measured.
    started : float
        Seconds of `time.time` at which the log was begun; wall time, for people.
    """

    board: str
    l4t: str
    workload: str
    kind: str
    device: str
    procedure: Procedure
    started: Amount = 0.0

    @classmethod
    def of(cls, device: Device, spec: str, workload: Workload, procedure: Procedure) -> LogHeader:
        """The header of a log begun now."""
        return cls(
            board=device.board.name,
            l4t=device.board.l4t,
            workload=workload.name,
            kind=workload.kind,
            device=spec,
            procedure=procedure,
            started=time.time(),
        )

    def check_same(self, other: LogHeader, path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, unless both describe the same profile."""
        for name in _IDENTITY:
            here, wanted = getattr(self, name), getattr(other, name)
            if here != wanted:
                raise InvalidInput(
                    f"{path}, line 1: the log is of {name} {_shown(here, wanted)}, "
                    f"not {_shown(wanted, here)}; write to another file"
                )


def _shown(value: str | Procedure, other: str | Procedure) -> str:
    """A value for a message; of a procedure only the fields that differ."""
    if isinstance(value, str) or isinstance(other, str):
        return repr(value)
    against = asdict(other)
    return ", ".join(f"{k}={v:g}" for k, v in asdict(value).items() if v != against[k])


class ProfileLog:
    """A profile's measurements, in memory and as lines of a file.

    `open` to go on with one, `read` to look at one.
    """

    def __init__(
        self,
        path: Path,
        header: LogHeader,
        entries: Sequence[ProfiledMode] = (),
        file: FileIO | None = None,
    ) -> None:
        self.path = path
        self.header = header
        self._entries = list(entries)
        self._file = file

    @classmethod
    def open(cls, path: str | Path, header: LogHeader) -> ProfileLog:
        """Begin a log, or go on with the one that the file holds; close it, or use ``with``.

        Parameters
        ----------
        path : str or Path
            The file, made if there is none. Locked until the log is closed.
        header : LogHeader
            What will be measured. A log that exists must be of the same.

        Raises
        ------
        InvalidInput
            If the file cannot be written, is no log, is of another board, workload, device or
            procedure or of a newer version, or another profiler is writing it.
        InvalidTable
            If a line of it is damaged; an unfinished last line is not, it is cut off.
        """
        path = Path(path)
        file = open_locked(path)
        try:
            content = file.readall()
            if is_begun(content, FORMAT):
                file.truncate(0)
                file.seek(0)
                write_line(file, 0, _header_json(header), path)
                sync_folder(path)
                return cls(path, header, (), file)
            found, entries, length = _parse(content, path)
            found.check_same(header, path)
            file.truncate(length)
            file.seek(length)
            return cls(path, found, entries, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def read(cls, path: str | Path) -> ProfileLog:
        """Read a log, also one that is being written; an unfinished last line is left out.

        Raises
        ------
        InvalidInput
            If the file cannot be read, is no log, or is of a newer version.
        InvalidTable
            Naming file and line, if one is damaged.
        """
        path = Path(path)
        content = read_bytes(path, RESULTS)
        header, entries, _ = _parse(content, path)
        return cls(path, header, entries)

    @property
    def entries(self) -> Sequence[ProfiledMode]:
        """All measurements, in the order measured."""
        return tuple(self._entries)

    def append(self, entry: ProfiledMode) -> None:
        """Add a measurement; it is on the disc when this returns."""
        if self._file is None:
            raise InvalidInput(f"{self.path}: the log is not open for writing")
        line = {**_entry_json(entry), "at": round(time.time(), 3)}
        write_line(self._file, self._file.tell(), line, self.path)
        self._entries.append(entry)

    def table(self) -> MeasurementTable:
        """The measurements as a table."""
        return MeasurementTable.of([e.measurement for e in self._entries], str(self.path))

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> ProfileLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _header_json(header: LogHeader) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, **asdict(header)}


def _entry_json(entry: ProfiledMode) -> dict[str, Any]:
    """One flat line: the axes of the mode under the names that tables use."""
    values = {name: getattr(entry, name) for name in ProfiledMode.__dataclass_fields__}
    del values["mode"]
    return {**dict(zip(AXES, entry.mode.values, strict=True)), **values}


def _parse(content: bytes, path: Path) -> tuple[LogHeader, list[ProfiledMode], int]:
    """Header, measurements, and the length of the lines that are whole."""
    lines, length = whole_lines(content)
    if not lines:
        raise InvalidInput(f"{path}, line 1: not a log of powerctl profile")
    header = _parse_header(lines[0], f"{path}, line 1")
    entries: list[ProfiledMode] = []
    seen: dict[tuple[PowerMode, int], int] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _parse_entry(line, f"{path}, line {number}")
        key = (entry.mode, entry.batch_size)
        if key in seen:
            raise InvalidTable(f"{path}, line {number}: the measurement of line {seen[key]} again")
        seen[key] = number
        entries.append(entry)
    return header, entries, length


def _parse_header(line: bytes, where: str) -> LogHeader:
    try:
        content = parse_json(line, where)
        if content["format"] != FORMAT:
            raise KeyError("format")
        version = content["version"]
    except (InvalidInput, KeyError, TypeError):
        raise InvalidInput(f"{where}: not a log of powerctl profile") from None
    if version != VERSION:
        raise InvalidInput(
            f"{where}: the log has version {quoted(version)}, this powerctl reads {VERSION}; "
            "install a newer one, or write to another file"
        )
    try:
        return build(LogHeader, content, f"{where}: the header is damaged", ignored=None)
    except InvalidInput as error:
        raise InvalidTable(str(error)) from None


def _parse_entry(line: bytes, where: str) -> ProfiledMode:
    where = f"{where}: damaged"
    try:
        content = parse_json(line, where)
        found = build(_Axes, content, where, ignored=None)
        mode = PowerMode(*(getattr(found, axis) for axis in AXES))
        return build(ProfiledMode, {**content, "mode": mode}, where, ignored=None)
    except InvalidInput as error:
        raise InvalidTable(str(error)) from None
