"""The log of a profile: what it is of in the first line, then a line for each measurement."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from powerctl.device import Device
from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Range, build
from powerctl.json_lines import JsonLog, LogHeader
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, PowerMode
from powerctl.profiler import Procedure, ProfiledMode
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
class ProfileHeader(LogHeader):
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
    def of(
        cls, device: Device, spec: str, workload: Workload, procedure: Procedure
    ) -> ProfileHeader:
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

    def check_same(self, other: ProfileHeader, path: Path) -> None:
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


class ProfileLog(JsonLog[ProfileHeader, ProfiledMode]):
    """The measurements of a profile; a line is flat, with the mode under the names of tables."""

    format, version, command = "powerctl-profile", 1, "profile"
    header_type = ProfileHeader

    def table(self) -> MeasurementTable:
        """The measurements as a table."""
        return MeasurementTable.of([e.measurement for e in self.entries], str(self.path))

    @staticmethod
    def _entry_json(entry: ProfiledMode) -> dict[str, Any]:
        values = {name: getattr(entry, name) for name in ProfiledMode.__dataclass_fields__}
        del values["mode"]
        axes = dict(zip(AXES, entry.mode.values, strict=True))
        return {**axes, **values, "at": round(time.time(), 3)}

    @staticmethod
    def _parse_entry(content: Any, where: str) -> ProfiledMode:
        found = build(_Axes, content, where, ignored=None)
        mode = PowerMode(*(getattr(found, axis) for axis in AXES))
        return build(ProfiledMode, {**content, "mode": mode}, where, ignored=None)

    @staticmethod
    def _key(entry: ProfiledMode) -> tuple[PowerMode, int]:
        return entry.mode, entry.batch_size
