"""Where the daemon listens: a socket that others cannot open, and of one daemon only."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.ownership import lock_own, own_folder

FOLDER = "run/powerctl"
_SOCKET = f"{FOLDER}/daemon.sock"
_LOCK = f"{FOLDER}/daemon.lock"
_TAKEN = "another powerctl daemon (process {}) serves this board"
_LONGEST = 107  # bytes of a socket's path that the kernel takes
_BACKLOG = 64


def daemon_socket(root: Path) -> Path:
    """The daemon's socket below a root: ``/run/powerctl/daemon.sock``."""
    return root / _SOCKET


class Listener:
    """Listens on a Unix socket that only a user and a group can open; closed, it is gone.

    Parameters
    ----------
    root : Path
        Of the board: one daemon serves it.
    path : Path
        Of the socket. What a killed daemon left there is removed.
    gid : int or None
        The group that may open it; None for the daemon's own user alone.

    Raises
    ------
    DeviceUnavailable
        If another daemon serves the board or the socket, or the socket cannot be made.
    InvalidInput
        If the path cannot be a socket's.
    """

    def __init__(self, root: Path, path: Path, gid: int | None) -> None:
        if len(os.fsencode(path)) > _LONGEST:
            raise InvalidInput(f"{path}: longer than {_LONGEST} bytes; give another: --socket PATH")
        self.path = path
        try:
            self._lock = lock_own(root / _LOCK, _TAKEN)
            self.socket = _listen(path, gid)
        except OSError as error:
            raise DeviceUnavailable(f"{path}: cannot listen: {error.strerror or error}") from None
        self._made = _identity(path)

    def close(self) -> None:
        """Listen no more, and remove the socket unless another has put its own there."""
        self.socket.close()
        with suppress(OSError):
            if _identity(self.path) == self._made:
                self.path.unlink()
        os.close(self._lock)


def _listen(path: Path, gid: int | None) -> socket.socket:
    own_folder(path.parent)
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # nobody else can open it before it is the group's
    try:
        made.bind(os.fspath(path))
    finally:
        os.umask(before)
    if gid is not None:
        if os.lstat(path).st_gid != gid:
            os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, 0o660)
    made.setblocking(False)
    made.listen(_BACKLOG)
    return made


def _remove_stale(path: Path) -> None:
    """Remove what a killed daemon left; refuse to take a place that is taken."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise InvalidInput(f"{path}: there is something that is no socket; remove it first")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:  # it is full: somebody lives there
            pass
    raise DeviceUnavailable(f"{path}: another process listens there")


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return (status.st_dev, status.st_ino)
