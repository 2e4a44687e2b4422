"""The fleet file: groups of clients in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.boards import load_board
from powerctl.cost_model import idle_power_w
from powerctl.errors import InvalidInput
from powerctl.plugins import OR_A_FILE, Kind, toml_files
from powerctl.reading import misread, read_toml
from wattfed.client.fleet.columns import check_keys, check_whole
from wattfed.client.fleet.environment import TABLES, Environment
from wattfed.client.fleet.fleet import Fleet, Profiles
from wattfed.client.fleet.hours import HOUR_S

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


@lru_cache(maxsize=8)
def load_fleet(name: str) -> Fleet:
    """The clients of a fleet file, numbered from 0 in the order of its groups.

    Parameters
    ----------
    name : str
        A fleet of the catalogue, the path of a ``.toml`` file, whose format docs/fleets.md tells,
        or a fleet of others. A limit that is left out does not bind, a table that is left out
        means nothing of the kind.

    Raises
    ------
    UnknownName, InvalidInput
        Naming the file and the group: an unknown board or key, a list of the wrong length, a
        limit that is not positive, or no clients.
    """
    path = FLEETS.find_described(name)
    if isinstance(path, Fleet):
        return path
    content = read_toml(path)
    groups, parts, left = content.get("group", []), [], MOST_CLIENTS
    if not isinstance(groups, list) or not groups:
        raise InvalidInput(f"{path}: the fleet has no clients; add a [[group]] with board, count")
    for group_number, group in enumerate(groups, start=1):
        with misread(f"{path}, group {group_number}"):
            parts.append(_group(group, Path(str(path)).parent, left))
            left -= len(parts[-1].device)
    with misread(str(path)):
        check_keys(content, {"group", "start_hour"})
        start_hour = content.get("start_hour", 0)
        check_whole("start_hour", start_hour, least=0)
    return Fleet(
        device=np.concatenate([part.device for part in parts]),
        profiles=Profiles.joined([part.profiles for part in parts]),
        environment=Environment.joined(
            [part.environment for part in parts], start_s=start_hour % 24 * HOUR_S
        ),
    )


def _group(group: Mapping[str, Any], folder: Path, most: int) -> Fleet:
    check_keys(group, {"board", "l4t", "count", *_PER_CLIENT, *TABLES})
    if "board" not in group:
        raise InvalidInput("no board; name one of: powerctl boards")
    name = str(group["board"])
    l4t = group.get("l4t")
    if not isinstance(l4t, str | None):
        raise InvalidInput(f'l4t is an L4T release in quotes, such as "36.4", got {l4t!r}')
    board = load_board(str(folder / name) if name.endswith(".toml") else name, l4t)
    count = group.get("count", 1)
    check_whole("count", count, 1, most)
    environment = Environment.read(group, count, folder)
    if "draw_w" not in group.get("battery", {"draw_w": 0.0}):
        resting_w = float(idle_power_w(board.hardware, *board.space.minimum.values))
        drawing = replace(environment.batteries, draw_w=np.full(count, resting_w))
        environment = replace(environment, batteries=drawing)
    return Fleet(
        device=np.full(count, f"twin:{board.name}" + (f"@{board.l4t}" if l4t else "")),
        profiles=Profiles.read({k: v for k, v in group.items() if k in _PER_CLIENT}, count),
        environment=environment,
    )
