"""Kinds of things that TOML files describe: the catalogues that ship, and the files of others."""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from powerctl.errors import InvalidInput
from powerctl.plugins import OF_OTHERS, Kind, parsed

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


Made = TypeVar("Made")

OR_A_FILE = f"; or the path of a .toml file{OF_OTHERS}"


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The content of a TOML file; raises `InvalidInput` naming the file and the defect."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path}: not readable as TOML: {error}") from None


def files_in(folder: Traversable) -> dict[str, Traversable]:
    """The TOML files of a folder by name, without their ending."""
    return {f.name[:-5]: f for f in folder.iterdir() if f.name.endswith(".toml")}


def find_entry(kind: Kind[Made], text: str) -> Path | Traversable | Made:
    """What a text stands for: the TOML file that describes a thing, or the thing itself.

    A file is named by its path, or by a name of ours; others name either in their code, or a
    function that makes the thing.
    """
    if text.endswith(".toml"):
        return Path(text)
    found = kind.find(parsed(kind.what, text)[0])
    if isinstance(found, str | PathLike):
        return Path(found)
    if text in kind.built_in or isinstance(found, kind.expected):
        return cast("Traversable | Made", found)
    return kind.make(text)
