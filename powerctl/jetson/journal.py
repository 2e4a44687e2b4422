"""The state found on a board, on disc before anything is written, and the lock of its holder."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping

from powerctl.durable import sync_folder
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.fields import checked
from powerctl.jetson.sysfs import Sysfs
from powerctl.reading import parse_json, read_text

_JOURNAL = "var/lib/powerctl/found.jsonl"
_LOCK = "var/lib/powerctl/lock"
_TRIES, _LOOK_S = 3, 0.01
_BOOT_ID = "proc/sys/kernel/random/boot_id"


class Journal:
    """What each file held before it was first written; appended to, never changed.

    Every note is on disc (fsync) before it returns, and nothing is written to a file that is not
    noted: after a kill or a loss of power the journal holds all that may have been changed. A
    restart of the board undoes every change by itself, so a journal from before one says nothing
    and is dropped.

    Parameters
    ----------
    sysfs : Sysfs
        Below its root is the journal: ``var/lib/powerctl/found.jsonl``.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self.path = sysfs.root / _JOURNAL
        self._boot = sysfs.read_if(_BOOT_ID) or ""
        self._found = self._read()

    @property
    def found(self) -> Mapping[str, str]:
        """What the files held, by path, in the order noted; empty if nothing was changed."""
        return self._found

    def reload(self) -> None:
        """Read again what is on disc: another controller may have noted it."""
        self._found = self._read()

    def note(self, held: Mapping[str, str]) -> None:
        """Note what files hold, except those noted before; on disc when it returns."""
        new = {path: value for path, value in held.items() if path not in self._found}
        if not new:
            return
        lines = [json.dumps({"path": path, "value": value}) for path, value in new.items()]
        if not self._found:
            lines.insert(0, json.dumps({"boot": self._boot, "pid": os.getpid()}))
        self._append("".join(line + "\n" for line in lines), is_first=not self._found)
        self._found.update(new)

    def close(self) -> None:
        """Drop the journal: everything is as it was found."""
        self._found.clear()
        if self.path.exists():
            self.path.unlink()
            sync_folder(self.path)

    def _append(self, text: str, *, is_first: bool) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "w" if is_first else "a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if is_first:
                sync_folder(self.path)
        except OSError as error:
            raise DeviceUnavailable(
                f"{self.path}: cannot note the state found ({error.strerror}), so nothing is "
                "changed; run as root, with room on the disc"
            ) from None

    def _read(self) -> dict[str, str]:
        try:
            lines = read_text(self.path).splitlines()
        except InvalidInput:
            if os.access(self.path, os.R_OK):
                raise
            return {}
        entries = []
        for line in lines:
            try:
                entry = parse_json(line, str(self.path))
                entries.append(checked(str(self.path), entry, Mapping[str, str | int]))
            except InvalidInput:  # cut off: then what it notes was never changed
                break
        if not entries or entries[0].get("boot") != self._boot:
            return {}
        return {entry["path"]: entry["value"] for entry in entries[1:] if len(entry) == 2}


class Lock:
    """Keeps a board to one controller; the kernel lets go of it when its process ends.

    Parameters
    ----------
    sysfs : Sysfs
        Below its root is the lock: ``var/lib/powerctl/lock``.

    Raises
    ------
    DeviceUnavailable
        If another holds it, or this process may not.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        path = sysfs.root / _LOCK
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DeviceUnavailable(
                f"{path}: {error.strerror}; clocks are set by root: sudo, or the daemon"
            ) from None
        if not self._is_free(self._file):
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            self.release()
            raise DeviceUnavailable(
                f"another powerctl (process {holder}) controls this board; "
                f"wait for it, or stop it: kill {holder}"
            )
        os.truncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    @staticmethod
    def _is_free(file: int) -> bool:
        """Take the lock; one who only looks (`holder`) has it for a moment."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(_LOOK_S)
        return False

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def holder(sysfs: Sysfs) -> str | None:
    """The process that controls a board, None if nobody does or it cannot be told."""
    try:
        file = os.open(sysfs.root / _LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(file, 32).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(file)
    return None
