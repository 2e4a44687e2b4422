"""What an agent must have for itself: its state directory, its socket and its device."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import IO

from powerctl.device import Device
from powerctl.devices.opening import open_device
from powerctl.devices.paced import PacedDevice
from powerctl.durable import remove_partials
from powerctl.errors import DeviceUnavailable, InvalidInput
from wattfed.client.agent.found_mode import KeptDevice

CLIENTS = "clients"
"""The folder of the clients' states, in the state directory."""

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
