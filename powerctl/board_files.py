"""The files of boards as they are written: ours (``boards/*.toml``), one's own, those of others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from powerctl.durable import home_folder
from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.plugins import OR_A_FILE, Kind, toml_files
from powerctl.reading import misread, quoted, read_toml

BOARDS = Kind[Path](
    "board",
    "powerctl.boards",
    toml_files(resources.files("powerctl") / "boards"),
    Path,
    hint=f"; see: powerctl boards; or add it: powerctl board new{OR_A_FILE}",
)
UNKNOWN_RELEASE = "unknown"
"""In place of an L4T release where nothing says which a board has."""

UNVERIFIED = "not in the catalogue: rail total unverified"

_NEEDED = {
    *("title", "modules", "cuda_cores", "cpu_architecture"),
    *("release", "rail", "total_power_rails", "hardware"),
}


def board_names() -> list[str]:
    """Names of all boards that ship with powerctl, or with what is installed."""
    return BOARDS.names()


def own_boards() -> dict[str, Path]:
    """The files of one's own boards by their names: ``~/.powerctl/boards/NAME.toml``.

    Of our names none is one's own: they mean the same everywhere.
    """
    found: list[Path] = []
    with suppress(OSError, RuntimeError):  # a home of others, or a user that has none
        found = sorted(path for path in (home_folder() / "boards").iterdir() if path.is_file())
    own = {path.stem: path for path in found if path.suffix == ".toml"}
    return {name: path for name, path in own.items() if name not in BOARDS.built_in}


def every_board() -> Iterator[str]:
    """Names of ours, then of one's own boards, then of those that installed packages bring."""
    own = own_boards()
    yield from sorted(BOARDS.built_in)
    yield from own
    yield from (name for name in BOARDS.others() if name not in own)


def releases(name: str) -> list[str]:
    """The L4T releases for which a board has its own axes, oldest first."""
    return [entry["l4t"] for entry in read_board(canonical_name(name))["release"]]


def canonical_name(name: str) -> str:
    """The catalogue's name of a board, which an alias may stand for; others have no alias."""
    for known in sorted(BOARDS.built_in):
        if name == known or name in read_board(known)["aliases"]:
            return known
    read_board(name)
    return name


@cache
def known_modules() -> tuple[Mapping[str, Any], ...]:
    """The modules of ``known_modules.toml``: known, but without lists of clocks to simulate."""
    known = read_toml(resources.files("powerctl") / "known_modules.toml")
    return tuple(known["module"])


def known_module(parts: Collection[str]) -> Mapping[str, Any] | None:
    """What is known of a module without an entry of the catalogue, by part numbers."""
    return next((m for m in known_modules() if set(parts) & set(m["parts"])), None)


def caveat(parts: Collection[str]) -> str:
    """What is to be said of a board that the catalogue lacks, by its part numbers."""
    known = known_module(parts)
    if known is None or "total_power_rails" not in known:
        return UNVERIFIED
    return f"no clocks of {known['title']} are in the catalogue: they are its kernel's"


def read_board(name: str) -> dict[str, Any]:
    """The file of a board, by its catalogue name, its path, or what others call it."""
    own = None if name in BOARDS.built_in else own_boards().get(name)
    return _read(str(own or BOARDS.find_described(name)))


@cache
def _read(path: str) -> dict[str, Any]:
    data = read_toml(path)
    if missing := sorted(key for key in _NEEDED if not data.get(key)):
        raise InvalidInput(f"{path}: not a board: it has no {', '.join(missing)}")
    with misread(f"{path}: not a board"):
        for entry in checked("release", data["release"], tuple[Mapping[str, Any], ...]):
            version(checked("the l4t of a release", entry.get("l4t"), str))
    return data


def release_of(name: str, l4t: str | None) -> dict[str, Any]:
    """The axes and presets of a board under a release; by default, or unknown, the oldest.

    Raises
    ------
    InvalidInput
        If the release is older than the oldest known.
    """
    entries: list[dict[str, Any]] = read_board(name)["release"]
    if l4t in (None, UNKNOWN_RELEASE):
        return entries[0]
    fitting = [e for e in entries if version(e["l4t"]) <= version(l4t)]
    if not fitting:
        raise InvalidInput(f"{name} has no axes for L4T {l4t}; the oldest is {entries[0]['l4t']}")
    return fitting[-1]


def version(l4t: str) -> tuple[int, ...]:
    """A release as numbers that compare.

    Raises
    ------
    InvalidInput
        If it is no release.
    """
    try:
        return tuple(int(part) for part in l4t.split("."))
    except ValueError:
        raise InvalidInput(f"cannot read {quoted(l4t)} as an L4T release such as 35.3.1") from None
