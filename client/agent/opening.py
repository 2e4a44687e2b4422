"""What an agent must have for itself: its state directory, its socket and its device."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from powerctl.device import Device, DeviceWrapper
from powerctl.devices.opening import open_device
from powerctl.devices.paced import PacedDevice
from powerctl.durable import remove_partials, replace_file
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.fields import build
from powerctl.modes import ModeSpace, PowerMode
from powerctl.reading import read_json

CLIENTS = "clients"
"""The folder of the clients' states, in the state directory."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FOUND_MODE = "found-mode.json"
_LOG = logging.getLogger("wattfed.agent")


def claim_state(folder: Path) -> IO[str]:
    """Make the state directory and lock it; the lock lasts until the file is closed, or we die.

    Raises
    ------
    DeviceUnavailable
        If another agent has it, which then has the device as well.
    InvalidInput
        If it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise InvalidInput(
            f"cannot write the state to {folder}: {error.strerror}; give another --state-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DeviceUnavailable(
            f"another agent uses {folder}; stop it, or give another --state-dir and --socket"
        ) from None
    for kept in (folder, folder / CLIENTS):
        remove_partials(kept)
    return lock


def claim_socket(path: Path) -> None:
    """Make way for a socket: what a killed agent has left goes, one that answers does not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(
            f"no socket at {path}: {error.strerror}; give another --socket"
        ) from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InvalidInput(
            f"no socket at {path}: {path.parent} cannot be written; give another --socket"
        )
    if not path.exists():
        return
    if not path.is_socket():
        raise InvalidInput(f"{path} is no socket; give another --socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise DeviceUnavailable(f"something answers at {path} already; give another --socket")


def open_kept(spec: str, state_dir: Path) -> KeptDevice:
    """Open the device, and restore the mode that a killed agent has left behind.

    An agent serves in real time: a board that is not there is held to it.
    """
    device: Device = open_device(spec)
    if device.is_virtual:
        device = PacedDevice(device)
        _LOG.info("%s is simulated in real time: rounds take as long as on the board", spec)
    return KeptDevice(device, state_dir / _FOUND_MODE)


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
    """The mode that was found, and in which boot of the machine, as the file has it."""

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
