"""Reading TOML files: the catalogues, fleet files, and their errors in one clear line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerctl.errors import InvalidInput, UnknownName

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The content of a TOML file; raises `InvalidInput` naming the file and the defect."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path}: not readable as TOML: {error}") from None


def catalogue_names(folder: Traversable) -> list[str]:
    """Names of the TOML files of a catalogue folder, without their ending."""
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def find_entry(folder: Traversable, what: str, name: str) -> Path | Traversable:
    """The file of a catalogue entry, or of a path to a TOML file of the user's own."""
    if name.endswith(".toml"):
        return Path(name)
    if name not in catalogue_names(folder):
        raise UnknownName(what, name, catalogue_names(folder), "; or the path of a .toml file")
    return folder / f"{name}.toml"
