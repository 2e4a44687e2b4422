"""The power mode that the agent has found, kept on disc until it is restored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from powerctl.device import Device, DeviceWrapper
from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import build
from powerctl.modes import ModeSpace, PowerMode
from powerctl.reading import read_json

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KeptDevice(DeviceWrapper):
    """A device whose mode found is written down before the first change.

    An agent that is killed leaves the file, and the next one restores that mode when it opens the
    device; unless the machine has started anew meanwhile, which has reset the mode as well.

    Parameters
    ----------
    device : Device
        One that says `keeps_found` keeps it itself, and is only asked to bring back what a killed
        process has left, and to restore.
    file : Path
        In the agent's state directory.

    Attributes
    ----------
    restored : PowerMode or None
        What an agent that was killed had found, now in force again.
    """

    def __init__(self, device: Device, file: Path) -> None:
        super().__init__(device)
        self._is_untouched = True
        self._file = file
        self._keeps = not device.keeps_found
        brought_back = device.bring_back()
        self._found = device.mode()
        self.restored = _left(file, device.space) if self._keeps else None
        if self.restored is not None:
            device.apply(self.restored)
            self._found = self.restored
        elif brought_back:
            self.restored = self._found
        file.unlink(missing_ok=True)

    @property
    def is_untouched(self) -> bool:
        """Whether no mode has been applied since it was opened, or restored."""
        return self._is_untouched

    def apply(self, mode: PowerMode) -> None:
        """Set a mode, and remember the one found."""
        if self._keeps and mode != self._found and not self._file.exists():
            self.space.check(mode)
            found = {"mode": self._found.values, "boot": _boot()}
            replace_file(self._file, json.dumps(found).encode())
        self._is_untouched = False
        self.device.apply(mode)

    def restore(self) -> None:
        """Return to the mode found, and forget it."""
        if not self._keeps:
            self.device.restore()
        elif self.device.mode() != self._found:
            self.device.apply(self._found)
        self._file.unlink(missing_ok=True)
        self._is_untouched = True


@dataclass(frozen=True)
class _Left:
    """What the file holds."""

    mode: tuple[int, int, int, int]
    boot: str


def _left(file: Path, space: ModeSpace) -> PowerMode | None:
    """The mode that a killed agent has left; None if there is none, or it is of another boot."""
    try:
        left = build(_Left, read_json(file), str(file))
    except InvalidInput:
        return None
    mode = PowerMode(*left.mode)
    return mode if mode in space and left.boot == _boot() else None


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
