"""Tiers of equally fast clients, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.speed_tiers import speed_tiers, tiers_that_fill
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport


@dataclass(frozen=True)
class RoundRobinTiers:
    """`k` random clients of one speed tier, each tier in its turn, the fastest first.

    The simplest answer to stragglers: whoever trains together is about equally fast, and yet
    everyone has a turn. It is TiFL's tiering (Chai et al., HPDC 2020) without its choice of tier.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    tiers : int
        Tiers to make; fewer in a small fleet, so that each holds `k` clients.
    """

    power: str = "slack"
    tiers: int = 5

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients of the tier whose turn it is."""
        candidates = offers.candidates(self.power)
        n_tiers = tiers_that_fill(len(candidates), k, self.tiers)
        tier = speed_tiers(offers.fastest_round_s(self.power)[candidates], n_tiers)
        members = candidates[tier == (server_round - 1) % n_tiers]
        rows = rng.choice(members, size=min(k, len(members)), replace=False)
        return assign(offers, rows, self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """The tiers come from the offers alone."""
