"""One client of a fleet: its device, its limits, its link, and what goes on around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray
from wattfed.client.fleet.environment import QUIET, Environment

DEFAULT_LINK_MBIT_S = 100.0


@dataclass(frozen=True)
class ClientLimits:
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
        for name in ("power_w", "energy_budget_j", "round_energy_j", "celsius"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name} must be positive, got {getattr(self, name):g}")

    def allowance_j(self, spent_j: float) -> float:
        """Energy that the next round may take after `spent_j` of the budget are gone."""
        return max(0.0, min(self.round_energy_j, self.energy_budget_j - spent_j))


LIMITS = tuple(f.name for f in fields(ClientLimits))
_Speed = TypeVar("_Speed", float, FloatArray)


def transfer_s(payload_bytes: float, link_mbit_s: _Speed) -> _Speed:
    """Seconds to receive and to send so many bytes over a link, or links, of some speed."""
    return 2 * payload_bytes * 8 / (link_mbit_s * 1e6)


@dataclass(frozen=True)
class ClientProfile:
    """One client.

    `unit` numbers the piece of silicon that a twin simulates; `row` is the client's in the columns
    of its environment. A client `is_deployed` where it is one by its own configuration, and not by
    a fleet that the server knows.
    """

    client: int
    device: str
    limits: ClientLimits
    link_mbit_s: float = DEFAULT_LINK_MBIT_S
    unit: int = 0
    environment: Environment = field(default=QUIET, repr=False)
    row: int = 0
    is_deployed: bool = False

    def __post_init__(self) -> None:
        if not self.link_mbit_s > 0:
            raise InvalidInput(f"client {self.client}: link_mbit_s must be positive")

    def transfer_s(self, payload_bytes: float) -> float:
        """Seconds to receive and to send so many bytes."""
        return transfer_s(payload_bytes, self.link_mbit_s)


def profile_from_node_config(node_config: dict[str, Any]) -> ClientProfile:
    """The profile of a deployed client from its SuperNode's ``--node-config``.

    Keys: `partition-id`, `device` (as for powerctl: ``twin:orin-agx``), and optionally `unit`,
    `link-mbit-s`, `accelerator` (where models live) and the limits `power-w`, `energy-budget-j`,
    `round-energy-j`, `celsius`.
    """
    limits = {k: float(node_config.get(k.replace("_", "-"), math.inf)) for k in LIMITS}
    client = int(node_config["partition-id"])
    return ClientProfile(
        client=client,
        device=str(node_config["device"]),
        limits=ClientLimits(**limits),
        link_mbit_s=float(node_config.get("link-mbit-s", DEFAULT_LINK_MBIT_S)),
        unit=int(node_config.get("unit", client)),
        is_deployed=True,
    )
