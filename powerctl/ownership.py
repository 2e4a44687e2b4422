"""Files that nobody else can have put there, and folders in which nobody else can put any.

A process of root's that opens a path which others may change opens what they choose. So every
folder from the root of the file system on must be of root or of this process's own user, and not
be writable by others, unless it is sticky as ``/tmp`` is. Walked from above, each folder that is
found so cannot be changed by others when the next one is looked at.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from powerctl.errors import DeviceUnavailable, InvalidInput

_OTHERS = 0o077
_NO_FILE = "{}: no file, or one with a second name; remove it first"
_MOST_LINKS = 40  # as the kernel's limit
_TRIES, _LOOK_S = 3, 0.01  # who only looks whether a lock is free holds it for microseconds


class InUse(DeviceUnavailable):
    """The file cannot be locked: another process has done so."""


def own_folder(folder: Path) -> None:
    """Make a folder where it is missing, and see that only root and this user can change it.

    Symbolic links on the way to it are followed where they are root's or this user's.

    Raises
    ------
    InvalidInput
        Naming the folder, or link, that is another's or that others may change.
    OSError
        If it cannot be made, or is no folder.
    """
    here, ahead, links = "", [*reversed(folder.absolute().parts)], 0
    while ahead:
        here = os.path.join(here, ahead.pop())
        try:
            status = os.lstat(here)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process makes it too
                os.mkdir(here, 0o755)
            status = os.lstat(here)
        _check(here, status)
        if stat.S_ISLNK(status.st_mode) and (links := links + 1) <= _MOST_LINKS:
            ahead += reversed(Path(os.readlink(here)).parts)
            here = os.path.dirname(here)
        elif not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(f"{here} is no folder")


def open_own(path: str | Path, flags: int, mode: int = 0o600) -> int:
    """Open a file of root's or of this user's; a link is not followed, and what is no file refused.

    Its folder is taken to be one's own (`own_folder`).

    Raises
    ------
    InvalidInput
        If it is another's, a link, no file, or has a second name.
    OSError
        If it cannot be opened.
    """
    safe = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in its place keeps nobody waiting
    try:
        file = os.open(path, flags & ~os.O_TRUNC | safe, mode)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a pipe that nobody reads
            raise InvalidInput(_NO_FILE.format(path)) from None
        if error.errno != errno.ELOOP:
            raise
        raise InvalidInput(f"{path}: a symbolic link, which is not followed; remove it") from None
    try:
        status = os.fstat(file)
        _check(path, status)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise InvalidInput(_NO_FILE.format(path))
        if flags & os.O_TRUNC:
            os.ftruncate(file, 0)
    except BaseException:
        os.close(file)
        raise
    return file


def lock_own(path: Path, taken: str) -> int:
    """Lock a file that no other user can open; the kernel lets go when this process ends.

    Whoever can open a file can lock it. So one that others may open, as an older version made it,
    is replaced, unless the process that is named in it lives; so is what is no file of one's own.

    Parameters
    ----------
    path : Path
        The file; its folder is made where it is missing.
    taken : str
        What is said if another process has it, with ``{}`` for that process's number.

    Raises
    ------
    InUse
        If another process has it.
    InvalidInput, OSError
        If the folder is not one's own, or the file cannot be made so.
    """
    own_folder(path.parent)
    for _ in range(_TRIES):
        try:
            file = open_own(path, os.O_RDWR | os.O_CREAT)
        except InvalidInput:
            path.unlink(missing_ok=True)
            continue
        status = os.fstat(file)
        holder, is_private = _named_in(file), not status.st_mode & _OTHERS
        if not _lock(file, fcntl.LOCK_EX) and (is_private or is_alive(holder)):
            os.close(file)
            raise InUse(taken.format(holder))
        if is_private and _is_at(path, status):
            with suppress(OSError):  # a full disc: then nobody is told who it is
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            return file
        if _is_at(path, status):  # or another process has just replaced it
            path.unlink(missing_ok=True)
        os.close(file)
    raise InvalidInput(f"{path}: cannot be made so that this user alone can open it")


def _is_at(path: Path, status: os.stat_result) -> bool:
    """Whether a path is still the name of an opened file."""
    try:
        return os.path.samestat(status, os.lstat(path))
    except FileNotFoundError:
        return False


def locked_by(path: Path) -> str | None:
    """The process that has locked a file with `lock_own`; None if nobody has.

    Raises
    ------
    PermissionError
        If this user may not look.
    """
    try:
        file = open_own(path, os.O_RDONLY)
    except PermissionError:
        raise
    except (InvalidInput, OSError):
        return None
    try:
        holder, is_private = _named_in(file), not os.fstat(file).st_mode & _OTHERS
        is_free = _lock(file, fcntl.LOCK_SH) or not (is_private or is_alive(holder))
        return None if is_free else holder
    finally:
        os.close(file)


def is_alive(process: str) -> bool:
    """Whether a process lives that is root's or this user's, by its number in digits."""
    try:
        return process.isdigit() and os.stat(f"/proc/{process}").st_uid in (0, os.geteuid())
    except OSError:
        return False


def _named_in(file: int) -> str:
    return os.read(file, 32).decode(errors="replace").strip() or "unknown"


def _lock(file: int, how: int) -> bool:
    """Take the lock if it is free; one who only looks at it has it for a moment."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOOK_S)
    return False


def _check(path: str | Path, status: os.stat_result) -> None:
    """Refuse what is another's; and, but for a link, what others may write or is not sticky."""
    me, mode = os.geteuid(), status.st_mode
    own_group = os.getegid() if me else 0
    theirs = stat.S_IWOTH | (0 if status.st_gid == own_group else stat.S_IWGRP)
    is_open = mode & theirs and not (stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & 0o1000))
    if status.st_uid not in (0, me) or is_open:
        raise InvalidInput(
            f"{path}: others than {f'user {me}' if me else 'root'} may change it (user "
            f"{status.st_uid}, mode {stat.S_IMODE(mode):04o}), so nothing in it can be trusted; "
            f"mend it: chown {me} {path} && chmod go-w {path}"
        )
