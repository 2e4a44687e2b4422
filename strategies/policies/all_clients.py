"""Everyone who can, in every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wattfed.strategies.offers import Offers
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport


@dataclass(frozen=True)
class AllClients:
    """All able clients, whatever `k` is."""

    power: str = "slack"

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of all able clients."""
        return assign(offers, offers.candidates(self.power), self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Reports teach nothing: everyone is selected in any case."""
