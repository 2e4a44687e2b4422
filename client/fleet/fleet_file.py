"""The fleet file: groups of clients in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.plugins import OR_A_FILE, Kind, parsed, toml_files, values_of
from powerctl.reading import misread, parse_toml, read_text, read_toml
from wattfed.client.fleet.columns import check_keys, check_whole
from wattfed.client.fleet.environment import TABLES, Environment
from wattfed.client.fleet.fleet import Fleet, Profiles
from wattfed.client.fleet.hours import HOUR_S
from wattfed.client.fleet.round_costs import RoundCosts

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

FLEETS = Kind[Fleet](
    "fleet",
    "wattfed.fleets",
    toml_files(resources.files("wattfed.client") / "fleets"),
    Fleet,
    hint=OR_A_FILE,
)
MOST_CLIENTS = 1_000_000
"""Of a fleet: ten times as many as there are measurements of, and about half a gigabyte."""
_PER_CLIENT = {f.name for f in fields(Profiles)}


def load_fleet(name: str) -> Fleet:
    """The clients of a fleet file, numbered from 0 in the order of its groups.

    A file is read anew each time; what it makes is kept as long as it says the same.

    Parameters
    ----------
    name : str
        A fleet of the catalogue, the path of a ``.toml`` file, whose format docs/fleets.md tells,
        or a fleet of others. ``NAME(ideal=true)`` has rounds of minibatches and transfers alone. A
        limit that is left out does not bind; of a table that is left out there is nothing, but for
        what a round takes, which is then as usual.

    Raises
    ------
    UnknownName, InvalidInput
        Naming the file and the group: an unknown board or key, a list of the wrong length, a
        limit that is not positive, or no clients.
    """
    path, asked = _described(name)
    if isinstance(path, Fleet):
        return path
    folder = Path(str(path)).parent.absolute()
    return _made(str(path), folder, read_text(path), asked.get("ideal"))


@lru_cache(maxsize=8)
def _made(path: str, folder: Path, text: str, asked_ideal: bool | None) -> Fleet:
    """The fleet of a file's text, which names other files from its folder on."""
    content = parse_toml(text, path)
    is_ideal = content.get("ideal", False) if asked_ideal is None else asked_ideal
    if not isinstance(is_ideal, bool):
        raise InvalidInput(f"{path}: ideal is true or false, got {is_ideal!r}")
    groups, parts, left = content.get("group", []), [], MOST_CLIENTS
    if not isinstance(groups, list) or not groups:
        raise InvalidInput(f"{path}: the fleet has no clients; add a [[group]] with board, count")
    for group_number, group in enumerate(groups, start=1):
        with misread(f"{path}, group {group_number}"):
            parts.append(_group(group, folder, left, is_ideal))
            left -= len(parts[-1].device)
    with misread(path):
        check_keys(content, {"group", "start_hour", "ideal"})
        start_hour = content.get("start_hour", 0)
        check_whole("start_hour", start_hour, least=0)
    return Fleet(
        device=np.concatenate([part.device for part in parts]),
        profiles=Profiles.joined([part.profiles for part in parts]),
        environment=Environment.joined(
            [part.environment for part in parts], start_s=start_hour % 24 * HOUR_S
        ),
        costs=RoundCosts.joined([part.round_costs for part in parts]),
        is_ideal=is_ideal,
    )


def fleet_groups(name: str) -> tuple[Path | Traversable, dict[str, Any]]:
    """The file of a fleet, and its content, whose groups are in the order of their clients.

    Raises
    ------
    InvalidInput
        If the fleet is one of others that is made in code, or the file cannot be read.
    """
    path, _ = _described(name)
    if isinstance(path, Fleet):
        raise InvalidInput(f"{name} is made in code: a fleet file is wanted")
    return path, read_toml(path)


def _described(name: str) -> tuple[Path | Traversable | Fleet, dict[str, Any]]:
    """What a name is of, and what its brackets ask of a file or a fleet of ours."""
    called, given = parsed("fleet", name)
    if called.endswith(".toml") or called in FLEETS.built_in:
        return FLEETS.find_described(called), values_of(called, given, {"ideal": False})
    return FLEETS.find_described(name), {}


def _group(group: Mapping[str, Any], folder: Path, most: int, is_ideal: bool) -> Fleet:
    check_keys(group, {"board", "l4t", "count", "round", *_PER_CLIENT, *TABLES})
    if "board" not in group:
        raise InvalidInput("no board; name one of: powerctl boards")
    name = str(group["board"])
    l4t = group.get("l4t")
    if not isinstance(l4t, str | None):
        raise InvalidInput(f'l4t is an L4T release in quotes, such as "36.4", got {l4t!r}')
    board = load_board(str(folder / name) if name.endswith(".toml") else name, l4t)
    count = group.get("count", 1)
    check_whole("count", count, 1, most)
    profiles = Profiles.read({k: v for k, v in group.items() if k in _PER_CLIENT}, count)
    costs = RoundCosts.of_board(board, profiles.link_mbit_s, group.get("round", {}), is_ideal)
    environment = Environment.read(group, count, folder)
    if "draw_w" not in group.get("battery", {"draw_w": 0.0}):
        drawing = replace(environment.batteries, draw_w=costs.idle_w + costs.carrier_w)
        environment = replace(environment, batteries=drawing)
    return Fleet(
        device=np.full(count, f"twin:{board.name}" + (f"@{board.l4t}" if l4t else "")),
        profiles=profiles,
        environment=environment,
        costs=costs,
    )
