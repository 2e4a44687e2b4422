"""Doors for files: each that our commands read, damaged, before a command that reads it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.breaking import studio
from benchmarks.breaking.trying import Door

_TOKEN = re.compile(r"\w+(?:\.\w+)*|\s+|.", re.DOTALL)
_MOST_BYTES = 200_000  # of an example: what is larger is slow to change, and repeats itself


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
    """A door for each file of each command that reads it."""
    folder = studio.make(stack)
    for line in studio.READS:
        kinds = {path.name: path for path in _read_by(line, folder)}  # one of each, of many alike
        for path in kinds.values():
            data = path.read_bytes()
            if data and len(data) < _MOST_BYTES and path.suffix not in (".png", ".html"):
                name = str(path.relative_to(folder))
                example = {"is": Thing.FILE, "content": _tokens(data)}
                yield Door(f"{name} of {line[:40]}", example, partial(_read, folder, line, name))


def _read_by(line: str, folder: Path) -> Iterator[Path]:
    """The files that a command line names, also by what is in a file or folder that it names."""
    words = {*shlex.split(line), "runs/one" if "--resume" in line else ""}
    named = [folder / word for word in words if word and (folder / word).exists()]
    for path in named:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (one for one in inside if one.is_file())
        if path.suffix == ".toml":
            text = path.read_text()
            yield from (
                one for one in folder.iterdir() if one.is_file() and f'"{one.name}"' in text
            )


def _tokens(data: bytes) -> list[str] | bytes:
    """A text in words, numbers and marks; what is no text as it is."""
    try:
        return _TOKEN.findall(data.decode())
    except UnicodeDecodeError:
        return data


def _read(folder: Path, line: str, name: str, case: dict[str, Any]) -> str:
    """Put the damaged file in its place, in a copy of all, and run the command."""
    content = case["content"]
    if isinstance(content, list):
        content = "".join(map(str, content))
    data = content if isinstance(content, bytes) else str(content).encode(errors="surrogatepass")
    shutil.copytree(folder, ".", symlinks=True, dirs_exist_ok=True)
    path = Path(name)
    path.unlink()
    _put(case.get("is"), path, _sealed(data))
    return studio.run(shlex.split(line))


def _put(thing: Any, path: Path, data: bytes) -> None:
    if thing is Thing.FOLDER:
        path.mkdir()
    elif thing is Thing.PIPE:
        os.mkfifo(path)
    elif thing is Thing.LOOP:
        path.symlink_to(path.name)
    elif thing is Thing.ENDLESS:
        path.symlink_to("/dev/zero")
    elif thing is not Thing.NOTHING:
        path.write_bytes(data)


def _sealed(data: bytes) -> bytes:
    """JSON with a checksum that fits its content again, as whoever means harm would see to."""
    try:
        whole = json.loads(data)
        content = json.dumps(whole["content"], sort_keys=True).encode()
        whole["sha256"] = hashlib.sha256(content).hexdigest()
        return json.dumps(whole).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        return data
