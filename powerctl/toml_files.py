"""Kinds of things that TOML files describe: the catalogues that ship, and the files of others."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from powerctl.plugins import OF_OTHERS, Kind, parsed

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

Made = TypeVar("Made")

OR_A_FILE = f"; or the path of a .toml file{OF_OTHERS}"


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
