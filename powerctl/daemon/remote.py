"""Controlling a board through the daemon, or by this process where there is none."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from powerctl.axes import ModeAxes, PowerMode
from powerctl.daemon.listening import daemon_socket
from powerctl.daemon.messages import Request, parse_reply
from powerctl.errors import DeviceUnavailable, ModeNotInForce, PowerctlError
from powerctl.jetson.container import CONTAINER_OPTIONS, is_container
from powerctl.jetson.controller import Controller, OwnController
from powerctl.jetson.identity import Identity, identify, identity_told
from powerctl.jetson.sysfs import Sysfs

SOCKET_VARIABLE = "POWERCTL_SOCKET"
_ANSWER_S = 60.0  # applying takes a second at most, restoring what is busy two


def open_controller(sysfs: Sysfs, path: Path | None = None, board: str | None = None) -> Controller:
    """What sets a board's modes: the daemon if it is there, else this process.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    path : Path, optional
        The daemon's socket; by default that of ``$POWERCTL_SOCKET``, and then a daemon must be
        there, or the one below the root.
    board : str, optional
        Which board it is, for where neither a device tree nor a daemon says it.

    Raises
    ------
    DeviceUnavailable
        If there is a daemon that does not serve this user or this board, or if there is none and
        clocks are missing.
    """
    daemon = find_daemon(sysfs, path)
    if daemon is None:
        return OwnController(sysfs, board)
    return RemoteController(sysfs, daemon, board)


def find_daemon(sysfs: Sysfs, path: Path | None = None) -> Daemon | None:
    """A connection to the daemon that `open_controller` takes; None if there is none."""
    asked = path or os.environ.get(SOCKET_VARIABLE)
    place = Path(asked or daemon_socket(sysfs.root))
    if not asked and not place.exists():
        return None
    try:
        daemon = Daemon(place)
    except (FileNotFoundError, ConnectionRefusedError):
        if not asked:
            return None
        raise DeviceUnavailable(f"no daemon listens at {asked}: sudo powerctl daemon") from None
    except PermissionError:
        join = "sudo usermod -aG powerctl $USER, then log in again"
        join = CONTAINER_OPTIONS if is_container(sysfs) else join
        raise DeviceUnavailable(f"this user may not use the daemon: {join}") from None
    except OSError as error:
        raise DeviceUnavailable(f"the daemon does not answer: {error}") from None
    served = daemon.ask(Request("read"))["root"]
    if served != str(sysfs.root):
        raise DeviceUnavailable(f"the daemon serves {served}, not {sysfs.root}")
    return daemon


def identity_by(seen: Mapping[str, Any], sysfs: Sysfs, board: str | None = None) -> Identity:
    """Which board a daemon says it has; an older one does not, and then it is looked at."""
    told = seen.get("identity")
    return identify(sysfs, board) if told is None else identity_told(told, board)


class Daemon:
    """A connection of this process to the daemon, on which it asks and waits for answers.

    Parameters
    ----------
    path : Path
        Of its socket.

    Raises
    ------
    OSError
        If nothing listens there, or this user may not connect.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._channel = _Channel(path)

    def ask(self, request: Request) -> dict[str, Any]:
        """Ask, and wait for the answer; where the connection is lost, once more on a new one.

        Asked twice, every verb does what it does once.

        Raises
        ------
        PowerctlError
            What the daemon says.
        DeviceUnavailable
            If nobody answers.
        """
        with self._lock:
            try:
                line = self._channel.ask(request.encode())
            except OSError:
                self._channel.close()
                try:
                    self._channel = _Channel(self._path)
                    line = self._channel.ask(request.encode())
                except OSError as error:
                    raise DeviceUnavailable(f"the daemon has gone: {error}") from None
        return parse_reply(line)

    def close(self) -> None:
        """Hang up, which ends the hold."""
        with self._lock:
            self._channel.close()


class _Channel:
    """A connected socket, written and read line by line."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_ANSWER_S)
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def ask(self, line: bytes) -> bytes:
        with suppress(BrokenPipeError):  # why it has hung up may be there to be read
            self._socket.sendall(line)
        answer = self._lines.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionError("it has hung up")
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class RemoteController:
    """Has the daemon set the modes; while one is held, a thread tells it that this process lives.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files, to read from.
    daemon : Daemon
        Serves this board.

    Attributes
    ----------
    identity, axes
        As of `powerctl.jetson.controller.OwnController`.
    """

    def __init__(self, sysfs: Sysfs, daemon: Daemon, board: str | None = None) -> None:
        self._daemon = daemon
        self._pid = os.getpid()
        seen = daemon.ask(Request("read"))
        self._period_s = float(seen["hold_s"]) / 4
        self.identity = identity_by(seen, sysfs, board)
        self.axes = ModeAxes(*map(tuple, seen["axes"]), name=self.identity.called)
        self._beat: _Heartbeat | None = None

    def apply(self, mode: PowerMode) -> None:
        """Set a mode and read it back; if it is not in force, all is restored.

        Raises
        ------
        ModeNotInSpace, ModeNotInForce, DeviceUnavailable
            As `OwnController.apply`; the last also if another holds the board.
        """
        self.axes.check(mode)
        try:
            self._daemon.ask(Request("apply", mode))
        except PowerctlError:
            self._stop_beat()
            raise
        if self._beat is None or not self._beat.is_alive():
            self._beat = _Heartbeat(self._daemon, self._period_s)

    def mode(self) -> PowerMode:
        """The mode in force, by the limits that the kernel holds."""
        return PowerMode(*self._daemon.ask(Request("read"))["mode"])

    def verify(self) -> None:
        """Hold the applied mode against what is measured now; see `Verification.check`."""
        if self._beat is None:
            return
        try:
            seen = self._daemon.ask(Request("read"))
        except DeviceUnavailable as error:
            raise ModeNotInForce(f"no mode is held any more: {error}") from None
        if not seen["mine"]:
            why = seen["amiss"] or "the daemon was restarted, which restored the board"
            raise ModeNotInForce(f"no mode is held any more: {why}")
        if seen["amiss"] is not None:
            raise ModeNotInForce(seen["amiss"])

    def restore(self) -> None:
        """Bring back the state found before the first `apply`, and let others control the board."""
        if self._beat is not None and os.getpid() == self._pid:  # or it is a fork's copy
            self._stop_beat()
            self._daemon.ask(Request("restore"))

    def close(self) -> None:
        """Restore, and be done; a second time does nothing."""
        if os.getpid() != self._pid:
            return
        try:
            self.restore()
        finally:
            self._daemon.close()

    def _stop_beat(self) -> None:
        if self._beat is not None:
            self._beat.stop()
            self._beat = None


class _Heartbeat(threading.Thread):
    """Says ``hold`` again and again, until it is stopped or the hold has ended."""

    def __init__(self, daemon: Daemon, period_s: float) -> None:
        super().__init__(name="power mode holder", daemon=True)
        self._asked = daemon
        self._period_s = period_s
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        """Until `stop`; why a hold has ended, `verify` finds out."""
        while not self._stopped.wait(self._period_s):
            try:
                self._asked.ask(Request("hold"))
            except PowerctlError:
                return

    def stop(self) -> None:
        """End it; a request on its way is waited for."""
        self._stopped.set()
        self.join()
