"""Doors for files: each that our commands read, damaged, before a command that reads it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.breaking import studio
from benchmarks.breaking.trying import Door, Wrong
from powerctl.errors import PowerctlError
from tests.hostile.files import KINDS, Kind

_TOKEN = re.compile(r"\w+(?:\.\w+)*|\s+|.", re.DOTALL)
_MOST = 200_000  # bytes of an example: what is larger is slow to change, and repeats itself
_KERNELS = ("board/sys/", "board/proc/")  # whose files nobody else writes
_READ_S = 2.0  # of computing, to read a file of some megabytes or refuse it
_READ_BYTES = 512 << 20
_MOST_LINE = 1500


class Thing(Enum):
    """What lies where a file is looked for."""

    FILE = "file"
    FOLDER = "folder"
    PIPE = "pipe"
    NOTHING = "nothing"
    LOOP = "loop"  # of symbolic links
    ENDLESS = "endless"

    def __repr__(self) -> str:
        return f"files.{self}"


def doors(stack: ExitStack) -> Iterator[Door]:
    """A door for all files of each command that reads some, and one for each kind's reader."""
    folder = studio.make(stack)
    for line in studio.READS:
        files = studio.read_by(line, folder)
        example: dict[str, Any] = {
            name: {"is": Thing.FILE, "content": tokens(data)}
            for name, path in files.items()
            if not (path.is_symlink() or name.startswith(_KERNELS))
            and path.suffix not in (".png", ".html")
            and 0 < len(data := path.read_bytes()) < _MOST
        }
        yield Door(f"files of {line}", example, partial(_read, line, files, frozenset(example)))
    for kind in KINDS:
        path = folder / "kinds" / kind.name / kind.name
        path.parent.mkdir(parents=True)
        kind.write(path)
        example = {"is": Thing.FILE, "content": tokens(path.read_bytes())}
        yield Door(
            f"a {kind.name}",
            example,
            partial(_open, kind),
            longest_s=_READ_S,
            memory_bytes=_READ_BYTES,
        )


def tokens(data: bytes) -> list[str] | bytes:
    """A text in words, numbers and marks; what is no text as it is."""
    try:
        return _TOKEN.findall(data.decode())
    except UnicodeDecodeError:
        return data


def _read(line: str, files: dict[str, Path], damaged: frozenset[str], case: Any) -> str:
    """Put the files in their places, as they are now, and run the command."""
    case = case if isinstance(case, dict) else {}
    for name, path in files.items():
        if name in damaged:
            place(Path(name), case.get(name), _sealed)
        else:
            studio.put(name, path)
    return studio.run(shlex.split(line))


def _open(kind: Kind, case: Any) -> str:
    """Have a file read by the code that every command reads its kind with."""
    path = Path(kind.name).absolute()
    place(path, case, kind.seal)
    try:
        kind.open(path)
    except PowerctlError as error:
        if len(str(error)) > _MOST_LINE or "\n" in str(error):
            raise Wrong(f"{kind.name}: an error that is no short line\n{error!s:.3000}") from error
        return "refused"
    return "taken"


def content_of(content: Any) -> bytes:
    """The bytes of what a case has in the place of a file's content."""
    if isinstance(content, bytes):
        return content
    text = "".join(map(str, content)) if isinstance(content, list) else str(content)
    return text.encode(errors="surrogatepass")


def place(path: Path, case: Any, sealed: Callable[[bytes], bytes]) -> None:
    """Put in a place what a case has there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    thing = case.get("is") if isinstance(case, dict) else Thing.NOTHING
    if thing is Thing.FOLDER:
        path.mkdir()
    elif thing is Thing.PIPE:
        os.mkfifo(path)
    elif thing is Thing.LOOP:
        path.symlink_to(path.name)
    elif thing is Thing.ENDLESS:
        path.symlink_to("/dev/zero")
    elif thing is not Thing.NOTHING:
        studio.put(str(path), sealed(content_of(case.get("content"))))


def _sealed(data: bytes) -> bytes:
    """JSON with a checksum that fits its content again, as whoever means harm would see to."""
    try:
        whole = json.loads(data)
        content = json.dumps(whole["content"], sort_keys=True).encode()
        whole["sha256"] = hashlib.sha256(content).hexdigest()
        return json.dumps(whole).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        return data
