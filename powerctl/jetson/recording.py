"""A recorded board: what `powerctl doctor --record` wrote of one, opened again and never written.

A recording is a plain tar of the files that powerctl reads on a board, links among them, and of
one that says which of them could not be read there, and why (``recording.json``).
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from subprocess import CompletedProcess
from typing import Annotated

from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.fields import Range, checked
from powerctl.jetson.sysfs import Sysfs
from powerctl.reading import misread, parse_json, quoted, read_bytes

NOTE = "recording.json"
"""The file of a recording that says what it is, and what could not be read."""
FORMAT = "powerctl-recording"

_READ_ONLY = "a recorded board is only looked at: nothing is set, run or measured on it"
_MOST_BYTES = 16 << 20  # a board's has some 500 kB
_MOST_FILES = 20_000
_Errors = Mapping[str, Annotated[int, Range(1, 1e4)]]


class RecordedSysfs(Sysfs):
    """The files of a recorded board, in a folder that goes when nobody refers to them.

    Parameters
    ----------
    file : Path
        The recording.

    Raises
    ------
    InvalidInput
        If it is none, is too large, or has what would lie outside of its folder.
    """

    def __init__(self, file: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="powerctl-recorded-"))
        self._gone = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            _unpack(file, folder)
            self._errors = _errors(folder / NOTE, str(file))
        except BaseException:
            self._gone()
            raise
        super().__init__(folder)

    def read(self, path: str) -> str:
        """The content of a file; the `OSError` that the board gave for it, if it did."""
        if (number := self._errors.get(self.resolve(path))) is not None:
            raise OSError(number, os.strerror(number), f"/{path}")
        return super().read(path)

    def may_write(self, path: str) -> bool:
        """Whether a file may be written: none ever."""
        return False

    def _write(self, path: str, text: str) -> None:
        raise OSError(errno.EROFS, _READ_ONLY, f"/{path}")

    def nvpmodel(self, preset: int) -> CompletedProcess[str]:
        """Refuse to switch presets: there is nothing to switch."""
        raise DeviceUnavailable(_READ_ONLY)


def read_only() -> DeviceUnavailable:
    """The refusal of whatever a recorded board cannot do."""
    return DeviceUnavailable(_READ_ONLY)


def _errors(note: Path, file: str) -> Mapping[str, int]:
    with misread(f"{file}: not a recording of powerctl doctor --record"):
        said = parse_json(read_bytes(note), NOTE)
        if said.get("format") != FORMAT:
            raise InvalidInput(f"its format is {said.get('format')!r}, not {FORMAT!r}")
        errors: Mapping[str, int] = checked("errors", said["errors"], _Errors)
    return errors


def _unpack(file: Path, folder: Path) -> None:
    """Write the files of a tar below a folder: the links last, so that none is written through."""
    links: dict[str, str] = {}
    made = {folder}

    def make(above: Path) -> None:
        if above not in made:
            above.mkdir(parents=True, exist_ok=True)
            made.add(above)

    with misread(f"{file}: not a recording of powerctl doctor --record"):
        for name, content in _members(read_bytes(file, _MOST_BYTES)):
            if isinstance(content, str):
                links[name] = content
                continue
            path = folder / name
            make(path if content is None else path.parent)
            if content is not None:
                path.write_bytes(content)
        for name, target in links.items():
            make((folder / name).parent)
            (folder / name).symlink_to(target)


def _members(content: bytes) -> Iterator[tuple[str, bytes | str | None]]:
    """Name and content of each file of a tar: of a link where it leads, of a folder None.

    It is never compressed, so that it holds no more than its size.
    """
    links: set[str] = set()
    with tarfile.open(fileobj=BytesIO(content), mode="r:") as tar:
        for number, member in enumerate(tar):
            name, above = member.name, PurePosixPath(member.name).parents
            if number >= _MOST_FILES or not _is_within(name):
                raise InvalidInput(f"too many files, or one outside of it: {quoted(name)}")
            if links & {str(folder) for folder in above}:
                raise InvalidInput(f"{quoted(name)} lies behind a link")
            if member.issym():
                leads = os.path.normpath(os.path.join(above[0], member.linkname))
                if not _is_within(leads):
                    raise InvalidInput(f"{quoted(name)} is a link to outside of it")
                links.add(name)
                yield name, member.linkname
            elif member.isdir():
                yield name, None
            elif (opened := tar.extractfile(member)) is not None:
                yield name, opened.read()
            else:
                raise InvalidInput(f"{quoted(name)} is neither a file, a folder nor a link")


def _is_within(name: str) -> bool:
    """Whether a path is below the folder that it is relative to, and is written plainly."""
    return os.path.normpath(name) == name and not name.startswith(("/", ".."))
