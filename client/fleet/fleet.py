"""A fleet: each client's device, limits, link and environment; of many clients as columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.modes import FloatArray
from wattfed.client.fleet.columns import FleetColumns, number_column
from wattfed.client.fleet.environment import QUIET, Environment
from wattfed.client.fleet.round_costs import IDEAL, RoundCosts
from wattfed.strategies.protocol import Name

DEFAULT_LINK_MBIT_S = 100.0


@dataclass(frozen=True)
class TrainingLimits:
    """What a device may spend on federated training.

    Attributes
    ----------
    power_w : float
        Limit on module power while training.
    energy_budget_j : float
        Training energy over the whole run.
    round_energy_j : float
        Training energy in any one round.
    celsius : float
        Limit on the temperature of any part of the board while training.
    """

    power_w: float = math.inf
    energy_budget_j: float = math.inf
    round_energy_j: float = math.inf
    celsius: float = math.inf

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if not limit > 0:
                raise InvalidInput(f"{name} must be positive, got {limit:g}")


_Speed = TypeVar("_Speed", float, FloatArray)


def transfer_s(payload_bytes: float, link_mbit_s: _Speed) -> _Speed:
    """Seconds to receive and to send so many bytes over a link, or links, of some speed."""
    return 2 * payload_bytes * 8 / (link_mbit_s * 1e6)


@dataclass(frozen=True)
class ClientProfile:
    """A client of a fleet, or one by its own configuration: its device, limits and link.

    `unit` numbers the piece of silicon that a twin simulates; `row` is the client's in the columns
    of its environment and of what rounds cost it; `rounds` says whether those are real or ideal. A
    client `is_deployed` where it is one by its own configuration, and not by a fleet that the
    server knows. `name` is what its operator calls it; empty where nobody has named it.
    """

    client: int
    device: str
    limits: TrainingLimits
    link_mbit_s: float = DEFAULT_LINK_MBIT_S
    unit: int = 0
    environment: Environment = field(default=QUIET, repr=False)
    costs: RoundCosts = field(default=IDEAL, repr=False)
    row: int = 0
    rounds: str = ""
    is_deployed: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if not self.link_mbit_s > 0:
            raise InvalidInput(f"client {self.client}: link_mbit_s must be positive")


def profile_from_node_config(node_config: dict[str, Any]) -> ClientProfile:
    """The profile of a deployed client from its SuperNode's ``--node-config``.

    Keys: `partition-id`, `device` (as for powerctl: ``twin:orin-agx``), and optionally `name`,
    `unit`, `link-mbit-s`, `accelerator` (where models live) and the limits `power-w`,
    `energy-budget-j`, `round-energy-j`, `celsius`.
    """
    limits = {
        k: float(node_config.get(k.replace("_", "-"), math.inf)) for k in vars(TrainingLimits())
    }
    client = int(node_config["partition-id"])
    return ClientProfile(
        client=client,
        device=str(node_config["device"]),
        limits=TrainingLimits(**limits),
        link_mbit_s=float(node_config.get("link-mbit-s", DEFAULT_LINK_MBIT_S)),
        unit=int(node_config.get("unit", client)),
        is_deployed=True,
        name=checked("name", node_config.get("name", ""), Name),
    )


@dataclass(frozen=True, eq=False)
class Profiles(FleetColumns):
    """Limits, as in `TrainingLimits`, and link speeds; arrays of shape (n,)."""

    power_w: FloatArray = number_column(np.inf, above=0.0)
    energy_budget_j: FloatArray = number_column(np.inf, above=0.0)
    round_energy_j: FloatArray = number_column(np.inf, above=0.0)
    celsius: FloatArray = number_column(np.inf, above=0.0)
    link_mbit_s: FloatArray = number_column(DEFAULT_LINK_MBIT_S, above=0.0)

    @classmethod
    def of(cls, profile: ClientProfile) -> Profiles:
        """The columns of one client."""
        values = {**vars(profile.limits), "link_mbit_s": profile.link_mbit_s}
        return cls(**{name: np.array([value]) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Fleet(Sequence[ClientProfile]):
    """The clients of a fleet, numbered from 0; a profile is made for who is looked at.

    Attributes
    ----------
    device : array of str, shape (n,)
        As for powerctl: ``twin:orin-agx``.
    profiles : Profiles
        Limits and links.
    environment : Environment
        Batteries, inference, availability and failures.
    costs : RoundCosts, optional
        What rounds take beside minibatches and transfers; by default what they really take.
    is_ideal : bool
        Whether rounds are minibatches and transfers alone: the costs by default, and in words.
    """

    device: NDArray[np.str_]
    profiles: Profiles
    environment: Environment
    costs: RoundCosts | None = None
    is_ideal: bool = False

    def __len__(self) -> int:
        return len(self.device)

    @overload
    def __getitem__(self, client: int) -> ClientProfile: ...

    @overload
    def __getitem__(self, client: slice) -> list[ClientProfile]: ...

    def __getitem__(self, client: int | slice) -> ClientProfile | list[ClientProfile]:
        if isinstance(client, slice):
            return [self[i] for i in range(len(self))[client]]
        client = range(len(self))[client]
        columns = self.profiles
        return ClientProfile(
            client=client,
            device=str(self.device[client]),
            limits=TrainingLimits(
                power_w=float(columns.power_w[client]),
                energy_budget_j=float(columns.energy_budget_j[client]),
                round_energy_j=float(columns.round_energy_j[client]),
                celsius=float(columns.celsius[client]),
            ),
            link_mbit_s=float(columns.link_mbit_s[client]),
            unit=client,
            environment=self.environment,
            costs=self.round_costs,
            row=client,
            rounds=self.rounds,
        )

    @property
    def rounds(self) -> str:
        """Whether its rounds are real or ideal, in words; every figure says it."""
        return "ideal rounds" if self.is_ideal else "real rounds"

    @cached_property
    def round_costs(self) -> RoundCosts:
        """What rounds take beside minibatches and transfers."""
        if self.costs is not None:
            return self.costs
        starts = np.flatnonzero(self.device[1:] != self.device[:-1]) + 1
        parts = []
        for rows in np.split(np.arange(len(self)), starts):
            board = load_board(str(self.device[rows[0]]).removeprefix("twin:"))
            links = self.profiles.link_mbit_s[rows[0] : rows[-1] + 1]
            parts.append(RoundCosts.of_board(board, links, is_ideal=self.is_ideal))
        return RoundCosts.joined(parts)
