"""The doors by which files of others come in: regular, of bounded size, and told of in one line.

What a door lets through is text, or plain values and arrays; `powerctl.fields` holds them to what
they must be. No door waits for a pipe, follows a device, or trusts a length that a file declares.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, FileIO, StringIO
from os import PathLike
from typing import TYPE_CHECKING, Any

from powerctl.errors import InvalidInput, PowerctlError

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS = 1 << 20
"""Bytes of what people write by hand, at most."""
DATA = 256 << 20
"""Bytes of tables, predictors and traces, at most."""
RESULTS = 64 << 30
"""Bytes of what runs and studies write themselves, at most, checkpoints among it."""

_DEEPEST = 50  # tables in tables; what is ours has five
_DOTS = 1000  # in a line of TOML that has no value: its parser takes the square of them
_DIGITS = 20  # of a whole number: none of ours has more than 19
_QUOTED = 200  # characters of a foreign value in a message
_CONTAINERS = ("dict", "frozenset", "list", "set", "tuple")


class NoFile(InvalidInput):
    """A file that is to be read is not there."""


def quoted(value: object) -> str:
    """A value of others for a message, in one line and cut off."""
    if isinstance(value, int) and abs(value) >= 10**_DIGITS:
        return "a number of more than 20 digits"  # thousands of them Python refuses to print
    try:
        return in_line(repr(value))
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"


def in_line(text: object, most: int = _QUOTED) -> str:
    """A text of others, or what an error says, in one line and cut off.

    What moves a terminal's cursor is left out: it could hide a line of a log, or make one up.
    """
    words = "".join(c if c.isprintable() else " " for c in str(text)[: 10 * most])
    line = " ".join(words.split())
    return line if len(line) <= most else f"{line[:most]}..."


@contextmanager
def misread(where: str) -> Iterator[None]:
    """Turn whatever foreign values make of the code that takes them in into one line.

    Parameters
    ----------
    where : str
        File and place, and what they are not.
    """
    try:
        yield
    except PowerctlError as error:
        raise InvalidInput(f"{where}: {error}") from None
    except Exception as error:  # numpy, zipfile and others raise many kinds on what is damaged
        raise InvalidInput(f"{where}: {in_line(f'{type(error).__name__}: {error}')}") from None


def open_regular(path: str | PathLike[str] | Traversable) -> FileIO:
    """A regular file, opened for reading; raises as `read_bytes` does."""
    try:
        number = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NoFile(f"{path}: no such file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a zero byte in its name
        raise InvalidInput(f"{quoted(str(path))}: no name of a file: {error}") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InvalidInput(f"{path}: cannot be read: not a regular file")
    return FileIO(number)


def read_bytes(path: str | PathLike[str] | Traversable, most: int = SETTINGS) -> bytes:
    """The content of a regular file of bounded size.

    Raises
    ------
    NoFile
        If there is none.
    InvalidInput
        If it cannot be read, is no regular file, or larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InvalidInput(f"{path}: of {size >> 20} MiB, and must be of at most {most >> 20}")
        try:
            return file.readall() or b""
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: str | PathLike[str] | Traversable, most: int = SETTINGS) -> str:
    """The text of a file in UTF-8, a mark of byte order left out."""
    return _text(read_bytes(path, most), str(path))


def read_lines(path: str | PathLike[str], most: int = RESULTS) -> list[str]:
    """The lines of a text that is written line by line, but for a last one that has no end."""
    return [line.removesuffix("\r") for line in read_text(path, most).split("\n")[:-1]]


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where}: not text in UTF-8, at byte {error.start}") from None


def read_json(path: str | PathLike[str], most: int = DATA) -> Any:
    """The value of a JSON file; raises as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, most), str(path))


def parse_json(content: bytes | str, where: str) -> Any:
    """The value of a text in JSON, neither deeply nested nor with endless whole numbers.

    Raises
    ------
    InvalidInput
        Naming where, and the place in it.
    """
    text = _text(content, where) if isinstance(content, bytes) else content
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise InvalidInput(f"{where}: nested too deeply, over {_DEEPEST} levels") from None
    except ValueError as error:
        raise InvalidInput(f"{where}: not readable as JSON: {in_line(error)}") from None
    if text.count("[") + text.count("{") > _DEEPEST:
        _check_nesting(value, where)
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits, over {_DIGITS}")
    return int(text)


def _check_nesting(value: Any, where: str) -> None:
    """Raise `InvalidInput` for what is nested too deeply, or holds a number of endless digits."""
    level = [value]
    for _ in range(_DEEPEST):
        if any(type(one) is int and abs(one) >= 10**_DIGITS for one in level):
            raise InvalidInput(f"{where}: a whole number of over {_DIGITS} digits")
        level = [
            one
            for inner in level
            if isinstance(inner, dict | list)
            for one in (inner.values() if isinstance(inner, dict) else inner)
        ]
        if not level:
            return
    raise InvalidInput(f"{where}: nested too deeply, over {_DEEPEST} levels")


def read_toml(path: str | PathLike[str] | Traversable) -> dict[str, Any]:
    """The content of a TOML file; raises `InvalidInput` naming the file and the defect."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The content of a text in TOML; raises `InvalidInput` naming where it is from."""
    try:
        if any(line.partition("=")[0].count(".") > _DOTS for line in text.splitlines()):
            raise ValueError(f"a key of more than {_DOTS} parts")
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not readable as TOML: {in_line(error)}") from None
    _check_nesting(content, where)
    return content


def read_csv(path: str | PathLike[str]) -> list[list[str]]:
    """The rows of a CSV file, the head among them."""
    try:
        return list(csv.reader(StringIO(read_text(path, DATA), newline="")))
    except csv.Error as error:
        raise InvalidInput(f"{path}: not readable as CSV: {error}") from None


def parse_arrays(packed: bytes, where: str, most: int = DATA) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` archive, which unpacked have no more than so many bytes.

    Raises
    ------
    InvalidInput
        Also for arrays of objects: to load those is to run them.
    """
    import numpy as np  # which the daemon and the first screens of help do without

    with misread(f"{where}: no archive of arrays"):
        with zipfile.ZipFile(BytesIO(packed)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > most:
                raise InvalidInput(f"of {size >> 20} MiB unpacked, which is over {most >> 20}")
        with np.load(BytesIO(packed), allow_pickle=False) as file:
            return dict(file)


def parse_pickle(content: bytes, where: str) -> Any:
    """What a pickle of plain data holds: numbers, texts and builtin containers.

    Raises
    ------
    InvalidInput
        If it asks for anything else, as to load a pickle is otherwise to run it; or for more
        memory than it has bytes, as nine of them could for gigabytes.
    """
    import pickletools

    with misread(f"{where}: no pickle of plain data"):
        for operation, given, _ in pickletools.genops(content):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(given or 0) > len(
                content
            ):
                raise InvalidInput(f"it asks for a memory of {given} entries")
        return _ContainersOnly(BytesIO(content)).load()


class _ContainersOnly(pickle.Unpickler):
    """Reads pickles of plain data; what would import anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "builtins" and name in _CONTAINERS:
            return super().find_class(module, name)
        raise InvalidInput(f"the pickle asks for {module}.{name}; only plain data is read")
