"""The files of the board catalogue, ``boards/*.toml``, as they are written: names and releases."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from powerctl.errors import InvalidInput, UnknownName
from powerctl.toml_files import catalogue_names, read_toml

_CATALOGUE = resources.files("powerctl") / "boards"


def board_names() -> list[str]:
    """Names of all boards of the catalogue."""
    return catalogue_names(_CATALOGUE)


def releases(name: str) -> list[str]:
    """The L4T releases for which a board has its own axes, oldest first."""
    return [entry["l4t"] for entry in read_board(canonical_name(name))["release"]]


def canonical_name(name: str) -> str:
    """The catalogue's name of a board, which an alias may stand for."""
    for known in board_names():
        if name == known or name in read_board(known)["aliases"]:
            return known
    raise UnknownName("board", name, board_names(), "; see: powerctl boards")


@cache
def read_board(name: str) -> dict[str, Any]:
    """The file of a board, by its catalogue name."""
    return read_toml(_CATALOGUE / f"{name}.toml")


def release_of(name: str, l4t: str | None) -> dict[str, Any]:
    """The axes and presets of a board under a release, by default the oldest known.

    Raises
    ------
    InvalidInput
        If the release is older than the oldest known.
    """
    entries: list[dict[str, Any]] = read_board(name)["release"]
    if l4t is None:
        return entries[0]
    fitting = [e for e in entries if _version(e["l4t"]) <= _version(l4t)]
    if not fitting:
        raise InvalidInput(f"{name} has no axes for L4T {l4t}; the oldest is {entries[0]['l4t']}")
    return fitting[-1]


def _version(l4t: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in l4t.split("."))
    except ValueError:
        raise InvalidInput(f"cannot read {l4t!r} as an L4T release such as 35.3.1") from None
