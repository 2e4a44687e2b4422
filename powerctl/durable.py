"""Files that are there whole after a kill or a loss of power: the old one, or the new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from powerctl.errors import InvalidInput

_PARTIAL = ".partial"


def home_folder() -> Path:
    """Where a person's own files are kept: ``$POWERCTL_HOME``, or ``~/.powerctl``."""
    return Path(os.environ.get("POWERCTL_HOME") or Path.home() / ".powerctl")


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes the place of an older one when it is whole and on disc.

    Whatever ends the writing before leaves the old file, and nothing else; a kill leaves a
    ``.partial`` beside it. Any number may write the same file at once: the last one stays. What is
    no file, as ``/dev/stdout``, is written to; a pipe that nobody reads is refused. A symbolic link
    is followed if it is one's own or root's; one that somebody else has put there is replaced.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        number = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)  # nobody is waited for
        os.set_blocking(number, True)
        with open(number, "wb") as file:
            yield file
        return
    if path.is_symlink() and path.lstat().st_uid in (0, os.geteuid()):
        path = Path(os.path.realpath(path))  # of a circle of links, one of them: it is replaced
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_folder(path)


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file so that a kill or a loss of power leaves the old or the new one, whole."""
    with replacing(path) as file:
        file.write(content)


def write_output(path: str | Path, content: str | bytes) -> None:
    """Write a file that a person has asked for, as `replace_file` does.

    Raises
    ------
    InvalidInput
        If it cannot be written, with the path and the reason.
    """
    try:
        replace_file(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None


def remove_partials(folder: Path) -> None:
    """Remove what killed writers have left in a folder; for who keeps all others out of it."""
    for partial in folder.glob(f"*{_PARTIAL}"):
        partial.unlink()


def sync_folder(path: Path) -> None:
    """Make the name of a new file, or its removal, survive a loss of power too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
