"""The state found on a board, on disc before anything is written, and the lock of its holder."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from powerctl.durable import sync_folder
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInForce
from powerctl.jetson.sysfs import Sysfs
from powerctl.ownership import is_alive, lock_own, locked_by, open_own, own_folder
from powerctl.reading import in_line

_JOURNAL = "var/lib/powerctl/found.jsonl"
_LOCK = "var/lib/powerctl/lock"
WRITABLE = (
    "let the folder be written, for what is found is noted there before it is changed; a tmpfs "
    "will do: sudo mount -t tmpfs -o mode=755 none /var/lib/powerctl"
)
"""What mends a journal's folder on a read-only system; after a restart nothing is changed."""
_TAKEN = "another powerctl (process {0}) controls this board; wait for it, or stop it: kill {0}"
_BOOT_ID = "proc/sys/kernel/random/boot_id"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOST_DIGITS = 12  # of a setting: a clock in Hz
_MOST_BYTES = 1 << 20  # a board's journal has a few thousand

log = logging.getLogger("powerctl.jetson")


class Journal:
    """What each file held before it was first written; an entry stays until all is restored.

    Every note is on disc (fsync) before it returns, and nothing is written to a file that is not
    noted: after a kill or a loss of power the journal holds all that may have been changed. A
    restart of the board undoes every change by itself, so a journal from before one says nothing
    and is dropped. Making one only looks, and never fails: of what is damaged, the entries that
    are whole are taken.

    Parameters
    ----------
    sysfs : Sysfs
        Below its root is the journal: ``var/lib/powerctl/found.jsonl``.

    Attributes
    ----------
    damage : str
        Why not all that is on disc can be read; empty if it can.
    lost : str
        Where a damaged journal of this boot is kept, so that more may be changed than is noted;
        empty if there was none.
    writer : str
        The process that wrote what is on disc; empty if nothing is.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self.path = sysfs.root / _JOURNAL
        boot = sysfs.read_if(_BOOT_ID) or ""
        self._boot = boot if _UUID.fullmatch(boot) else ""
        self.reload()

    @property
    def found(self) -> Mapping[str, str]:
        """What the files held, by path, in the order noted; empty if nothing was changed."""
        return self._found

    def reload(self) -> None:
        """Read again what is on disc: another controller may have noted it."""
        self._found: dict[str, str] = {}
        self.damage = self.lost = self.writer = ""
        self._stamp = _stamp(self.path)
        try:
            self._take(_read(self.path))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass
        except OSError as error:
            self.damage = f"{self.path}: {error.strerror}"
        except InvalidInput as error:
            self.damage = str(error)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be noted, by root neither: the file system takes no writes."""
        folder = next(above for above in self.path.parents if os.path.exists(above))
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)

    def mend(self) -> None:
        """Keep a damaged journal aside, and note that it is lost; for who holds the lock."""
        if self.damage:
            aside = self._aside()
            self.lost = str(aside)
            self._write({}, aside)
            log.error("%s; it is kept as %s", self.damage, aside)
            self._found, self.damage = {}, ""

    def check(self) -> None:
        """Raise `ModeNotInForce` if more may be changed than is noted."""
        if self.lost or self.damage:
            raise ModeNotInForce(
                "more may be changed than can be restored: the note of it was damaged "
                f"({f'kept as {self.lost}' if self.lost else self.damage}); set what a boot sets: "
                "sudo powerctl restore --as-booted, or restart the board"
            )

    def note(self, held: Mapping[str, str]) -> None:
        """Note what files hold, except those noted before; on disc when it returns.

        Raises
        ------
        DeviceUnavailable
            If one holds what could not be written back, or it cannot be noted.
        """
        new = {path: value for path, value in held.items() if path not in self._found}
        for path, value in new.items():
            is_number = value.isdecimal() and len(value) <= _MOST_DIGITS
            if not (is_number or value in ("on", "auto")):
                raise DeviceUnavailable(
                    f"/{path} holds {in_line(value, 40)!r}, which could not be restored, so "
                    "nothing is changed; a setting is a number, on or auto"
                )
        found = {**self._found, **new}
        if len(found) > len(self._found):
            self._write(found)
            self._found = found

    def keep(self) -> None:
        """Write it again from memory if it is not on disc any more as it was written."""
        if self._is_gone():
            aside = self._aside()
            self._write(self._found, aside)
            log.warning(
                "%s is written again from memory (see beside it: %s)", self.path, aside.name
            )

    def close(self, *, knows_all: bool = False) -> None:
        """Drop the journal: everything is as it was found, or is known to be otherwise right."""
        if self._is_gone():
            _rename(self.path, self._aside())
        self._found = {}
        if self.lost and not knows_all:
            self._write({})
        elif self.path.exists():
            self.lost = ""
            self.path.unlink()
            sync_folder(self.path)
            self._stamp = None

    def _is_gone(self) -> bool:
        """Whether it is not on disc as it was written; if so, says it."""
        if not self._found or _stamp(self.path) == self._stamp:
            return False
        log.warning("%s was removed or changed: what was found is taken from memory", self.path)
        return True

    def _aside(self) -> Path:
        """Where what is in its place, and is not as it should be, is kept."""
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        return self.path.with_name(f"found.damaged-{now}.jsonl")

    def _write(self, found: Mapping[str, str], aside: Path | None = None) -> None:
        """Put a whole new journal in the place of the old one, which may be kept aside."""
        entries = [{"path": path, "value": value} for path, value in found.items()]
        body = "".join(json.dumps(entry) + "\n" for entry in entries)
        head: dict[str, object] = {"boot": self._boot, "pid": os.getpid()}
        head["crc32"] = crc32(body.encode())
        if self.lost:
            head["lost"] = self.lost
        partial = self.path.with_name("found.partial")
        try:
            own_folder(self.path.parent)
            partial.unlink(missing_ok=True)
            with open(open_own(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
                file.write(f"{json.dumps(head)}\n{body}")
                file.flush()
                os.fsync(file.fileno())
            if aside is not None:
                _rename(self.path, aside)
            os.replace(partial, self.path)
            sync_folder(self.path)
        except OSError as error:
            raise DeviceUnavailable(
                f"{self.path}: cannot note the state found ({error.strerror}), so nothing is "
                "changed; run as root, with room on the disc"
            ) from None
        self._stamp = _stamp(self.path)

    def _take(self, content: bytes) -> None:
        """Take over the entries that are whole, unless they are of another boot."""
        *lines, rest = content.split(b"\n")
        sum_of_entries = crc32(content.partition(b"\n")[2])
        start = b'{"path": "' if lines else b'{"boot": "'
        if not (start.startswith(rest) or rest.startswith(start)):
            lines.append(rest)  # else it was cut off: what it notes was never changed
        if not lines:
            return
        try:
            head = _entry(lines[0], "boot")
        except ValueError as error:
            self.damage = f"{self.path}, line 1: {error}"
            return
        if head["boot"] and self._boot and head["boot"] != self._boot:
            return  # of boots that are not told apart, what was found is rather brought back
        self.lost, self.writer = str(head.get("lost", "")), str(head.get("pid", ""))
        if head.get("crc32", sum_of_entries) != sum_of_entries:  # older ones have none
            self.damage = f"{self.path}: its checksum is another"
        for number, line in enumerate(lines[1:], start=2):
            try:
                entry = _entry(line, "path", "value")
                self._found.setdefault(entry["path"], entry["value"])
            except ValueError as error:
                self.damage = f"{self.path}, line {number}: {error}"


def _entry(line: bytes, *names: str) -> dict[str, Any]:
    """An object of JSON that has a text for each of some names; else a `ValueError`."""
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("no line of JSON") from None
    texts = [entry.get(name) for name in names] if isinstance(entry, dict) else [None]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError(f"an object has the texts {' and '.join(names)} here")
    if "path" in names and (not entry["path"] or {"", ".."} & set(entry["path"].split("/"))):
        raise ValueError(f"{entry['path']!r} is no path below the root")
    return cast("dict[str, Any]", entry)


def _read(path: Path) -> bytes:
    """What a file of one's own holds, up to more than any journal."""
    if path.parent.exists():  # looking makes none
        own_folder(path.parent)
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InvalidInput(f"{path}: more than {_MOST_BYTES} bytes")
    return content


def _rename(path: Path, aside: Path) -> None:
    """Rename what is there, whatever it is; nothing need be."""
    with suppress(FileNotFoundError):
        os.rename(path, aside)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another, or from what it was; None if it is not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


class Lock:
    """Keeps a board to one controller; the kernel lets go of it when its process ends.

    Parameters
    ----------
    sysfs : Sysfs
        Below its root is the lock: ``var/lib/powerctl/lock``.

    Raises
    ------
    InUse
        If another holds it.
    DeviceUnavailable
        If this process may not.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        path = sysfs.root / _LOCK
        try:
            self._file: int | None = lock_own(path, _TAKEN)
        except OSError as error:
            as_root = "clocks are set by root: sudo, or the daemon"
            remedy = WRITABLE if error.errno == errno.EROFS else as_root
            raise DeviceUnavailable(f"{path}: {error.strerror}; {remedy}") from None

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def holder(sysfs: Sysfs) -> str | None:
    """The process that controls a board, None if nobody does or it cannot be told."""
    try:
        return locked_by(sysfs.root / _LOCK)
    except PermissionError:  # of those who may not look at the lock
        writer = Journal(sysfs).writer
        return writer if is_alive(writer) else None
