"""The profiler's log on disc: what was profiled, and a line a measurement."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from powerctl.device import Device
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.fields import Amount, Range, build
from powerctl.json_lines import JsonLog
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, PowerMode
from powerctl.profiler.measuring import ProfiledMode
from powerctl.profiler.procedure import Procedure
from powerctl.reading import quoted
from powerctl.workload import Workload

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


def _shown(value: str | Procedure, other: str | Procedure) -> str:
    """A value for a message; of a procedure only the fields that differ."""
    if isinstance(value, str) or isinstance(other, str):
        return quoted(value)
    against = asdict(other)
    return ", ".join(f"{k}={v:g}" for k, v in asdict(value).items() if v != against[k])


class ProfileLog(JsonLog[LogHeader, ProfiledMode]):
    """A profile's measurements, in memory and as lines of a file."""

    FORMAT = "powerctl-profile"
    COMMAND = "powerctl profile"

    def table(self) -> MeasurementTable:
        """The measurements as a table."""
        return MeasurementTable.of([e.measurement for e in self.entries], str(self.path))

    @staticmethod
    def header_json(header: LogHeader) -> Mapping[str, Any]:
        """The header's fields, the procedure's among them."""
        return asdict(header)

    @staticmethod
    def parse_header(content: dict[str, Any], where: str) -> LogHeader:
        """The header of a first line; `InvalidTable` if a field is missing or damaged."""
        try:
            return build(LogHeader, content, f"{where}: the header is damaged", ignored=None)
        except InvalidInput as error:
            raise InvalidTable(str(error)) from None

    @staticmethod
    def check_same(found: LogHeader, wanted: LogHeader, path: Path) -> None:
        """Raise `InvalidInput`, naming what differs, unless both describe the same profile."""
        for name in _IDENTITY:
            here, asked = getattr(found, name), getattr(wanted, name)
            if here != asked:
                raise InvalidInput(
                    f"{path}, line 1: the log is of {name} {_shown(here, asked)}, "
                    f"not {_shown(asked, here)}; write to another file"
                )

    @staticmethod
    def entry_json(entry: ProfiledMode) -> Mapping[str, Any]:
        """One flat line: the axes of the mode under the names that tables use, and when it was."""
        values = {each.name: getattr(entry, each.name) for each in fields(entry)}
        del values["mode"]
        axes = dict(zip(AXES, entry.mode.values, strict=True))
        return {**axes, **values, "at": round(time.time(), 3)}

    @staticmethod
    def parse_entry(content: dict[str, Any], where: str) -> ProfiledMode:
        """The measurement of a line."""
        found = build(_Axes, content, where, ignored=None)
        mode = PowerMode(*(getattr(found, axis) for axis in AXES))
        return build(ProfiledMode, {**content, "mode": mode}, where, ignored=None)

    @classmethod
    def _parse(cls, content: bytes, path: Path) -> tuple[LogHeader, list[ProfiledMode], int]:
        """As of every log; `InvalidTable` for a measurement that is there twice."""
        header, entries, length = super()._parse(content, path)
        seen: dict[tuple[PowerMode, int], int] = {}
        for number, entry in enumerate(entries, start=2):
            first = seen.setdefault((entry.mode, entry.batch_size), number)
            if first != number:
                raise InvalidTable(f"{path}, line {number}: the measurement of line {first} again")
        return header, entries, length
