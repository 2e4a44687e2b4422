"""Random selection: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wattfed.strategies.offers import Offers
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport


@dataclass(frozen=True)
class RandomSelection:
    """`k` of the able clients, each set equally likely (McMahan et al., AISTATS 2017)."""

    power: str = "slack"

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of `k` clients drawn without replacement."""
        candidates = offers.candidates(self.power)
        rows = rng.choice(candidates, size=min(k, len(candidates)), replace=False)
        return assign(offers, rows, self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Reports teach nothing: who is selected is random."""
