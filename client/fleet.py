"""Fleets: which boards there are, how they are linked, and what each may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from typing import Any

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, PowerctlError
from powerctl.rounds import Limits
from powerctl.toml_files import catalogue_names, find_entry, read_toml

_CATALOGUE = resources.files("client") / "fleets"


@dataclass(frozen=True)
class ClientProfile:
    """One client: its device, its limits and its link.

    `unit` numbers the piece of silicon that a twin simulates.
    """

    client: int
    device: str
    limits: Limits
    link_mbit_s: float = 100.0
    unit: int = 0

    def __post_init__(self) -> None:
        if not self.link_mbit_s > 0:
            raise InvalidInput(f"client {self.client}: link_mbit_s must be positive")

    def transfer_s(self, payload_bytes: float) -> float:
        """Seconds to receive and to send so many bytes."""
        return 2 * payload_bytes * 8 / (self.link_mbit_s * 1e6)


_LIMITS = tuple(f.name for f in fields(Limits))
_PER_CLIENT = (*_LIMITS, "link_mbit_s")
_GROUP_KEYS = {"board", "count", *_PER_CLIENT}


def fleet_names() -> list[str]:
    """Names of the fleets that ship with wattfed."""
    return catalogue_names(_CATALOGUE)


@lru_cache(maxsize=8)
def load_fleet(name: str) -> tuple[ClientProfile, ...]:
    """The clients of a fleet file, numbered from 0 in the order of its groups.

    Parameters
    ----------
    name : str
        A fleet of the catalogue, or the path of a ``.toml`` file. Each ``[[group]]`` names a
        `board` and a `count`; `power_w`, `energy_budget_j`, `round_energy_j`, `celsius` and
        `link_mbit_s` are one number for all of the group or a list with one per client. A limit
        that is left out does not bind.

    Raises
    ------
    UnknownName, InvalidInput
        Naming the file and the group: an unknown board or key, a list of the wrong length, a
        limit that is not positive, or no clients.
    """
    path = find_entry(_CATALOGUE, "fleet", name)
    groups = read_toml(path).get("group", [])
    clients: list[ClientProfile] = []
    for number, group in enumerate(groups, start=1):
        try:
            clients.extend(_members(group, first=len(clients)))
        except (PowerctlError, TypeError) as error:
            raise InvalidInput(f"{path}, group {number}: {error}") from None
    if not clients:
        raise InvalidInput(f"{path}: the fleet has no clients; add a [[group]] with board, count")
    return tuple(clients)


def _members(group: dict[str, Any], first: int) -> list[ClientProfile]:
    unknown = set(group) - _GROUP_KEYS
    if unknown or "board" not in group:
        what = f"unknown {', '.join(sorted(unknown))}" if unknown else "no board"
        raise InvalidInput(f"{what}; keys are {', '.join(sorted(_GROUP_KEYS))}")
    board = load_board(group["board"])
    count = group.get("count", 1)
    if not isinstance(count, int) or count < 1:
        raise InvalidInput(f"count must be a whole number of at least 1, got {count!r}")
    columns = {key: _column(key, group[key], count) for key in _PER_CLIENT if key in group}
    members = []
    for i in range(count):
        values = {key: column[i] for key, column in columns.items()}
        link = values.pop("link_mbit_s", 100.0)
        members.append(
            ClientProfile(first + i, f"twin:{board.name}", Limits(**values), link, first + i)
        )
    return members


def _column(key: str, value: Any, count: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise InvalidInput(f"{key} lists {len(values)} values for {count} clients")
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise InvalidInput(f"{key} must be numbers, got {value!r}")
    return [float(v) for v in values]


def profile_from_node_config(node_config: dict[str, Any]) -> ClientProfile:
    """The profile of a deployed client from its SuperNode's ``--node-config``.

    Keys: `partition-id`, `device` (as for powerctl: ``twin:orin-agx``), and optionally `unit`,
    `link-mbit-s` and the limits `power-w`, `energy-budget-j`, `round-energy-j`.
    """
    limits = {k: float(node_config.get(k.replace("_", "-"), math.inf)) for k in _LIMITS}
    client = int(node_config["partition-id"])
    return ClientProfile(
        client=client,
        device=str(node_config["device"]),
        limits=Limits(**limits),
        link_mbit_s=float(node_config.get("link-mbit-s", 100.0)),
        unit=int(node_config.get("unit", client)),
    )
