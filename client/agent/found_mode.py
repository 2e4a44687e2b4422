"""The power mode that the agent has found, kept on disc until it is restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from powerctl.boards import Board
from powerctl.device import Device
from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import build
from powerctl.modes import ModeSpace, PowerMode
from powerctl.reading import read_json
from powerctl.workload import Workload

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class KeptDevice:
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
    is_untouched : bool
        Whether no mode has been applied since it was opened, or restored.
    """

    def __init__(self, device: Device, file: Path) -> None:
        self.device = device
        self.is_untouched = True
        self._file = file
        self._keeps = not getattr(device, "keeps_found", False)
        bring_back: Callable[[], bool] = getattr(device, "bring_back", bool)
        brought_back = bring_back()
        self._found = device.mode()
        self.restored = _left(file, device.space) if self._keeps else None
        if self.restored is not None:
            device.apply(self.restored)
            self._found = self.restored
        elif brought_back:
            self.restored = self._found
        file.unlink(missing_ok=True)

    board: Board
    space: ModeSpace
    power_period_s: float

    def __getattr__(self, name: str) -> object:
        return getattr(self.device, name)

    def apply(self, mode: PowerMode) -> None:
        """Set a mode, and remember the one found."""
        if self._keeps and mode != self._found and not self._file.exists():
            self.space.check(mode)
            found = {"mode": self._found.values, "boot": _boot()}
            replace_file(self._file, json.dumps(found).encode())
        self.is_untouched = False
        self.device.apply(mode)

    def mode(self) -> PowerMode:
        """The mode in force."""
        return self.device.mode()

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch."""
        return self.device.execute(workload, step)

    def idle(self, seconds: float) -> None:
        """Wait."""
        self.device.idle(seconds)

    def now(self) -> float:
        """Seconds on the device's clock."""
        return self.device.now()

    def energy_j(self) -> float:
        """Joules since the device was opened."""
        return self.device.energy_j()

    def restore(self) -> None:
        """Return to the mode found, and forget it."""
        if not self._keeps:
            self.device.restore()
        elif self.device.mode() != self._found:
            self.device.apply(self._found)
        self._file.unlink(missing_ok=True)
        self.is_untouched = True


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
