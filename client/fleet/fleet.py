"""A fleet: the profiles of many clients as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from powerctl.modes import FloatArray
from wattfed.client.fleet.columns import FleetColumns, number_column
from wattfed.client.fleet.environment import Environment
from wattfed.client.fleet.profile import DEFAULT_LINK_MBIT_S, ClientLimits, ClientProfile


@dataclass(frozen=True, eq=False)
class Profiles(FleetColumns):
    """Limits, as in `ClientLimits`, and link speeds; arrays of shape (n,)."""

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
    """

    device: NDArray[np.str_]
    profiles: Profiles
    environment: Environment

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
            limits=ClientLimits(
                power_w=float(columns.power_w[client]),
                energy_budget_j=float(columns.energy_budget_j[client]),
                round_energy_j=float(columns.round_energy_j[client]),
                celsius=float(columns.celsius[client]),
            ),
            link_mbit_s=float(columns.link_mbit_s[client]),
            unit=client,
            environment=self.environment,
            row=client,
        )
