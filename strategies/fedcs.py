"""FedCS: as many clients as a round deadline admits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from powerctl.rounds import RoundAssignment, RoundReport
from strategies.offers import Offers
from strategies.policy import assign


@dataclass(frozen=True)
class FedCS:
    """Greedy selection under a round deadline (Nishio and Yonetani, ICC 2019).

    Clients upload in parallel, as on a LAN: a client fits if its own download, training and
    upload do, and the greedy order is by their sum. (The paper's serial uploads over one cell come
    with the comparison of policies.)

    Parameters
    ----------
    deadline_s : float
        Round deadline; 0 takes the median of the clients' shortest rounds.
    power : str
        Power policy of the selected.
    """

    deadline_s: float = 0.0
    power: str = "slack"

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of the up to `k` fastest clients that meet the deadline."""
        candidates = offers.candidates(self.power)
        if not len(candidates):
            return []
        round_s = offers.fastest_round_s(self.power)[candidates]
        deadline_s = self.deadline_s or float(np.median(round_s))
        polled = rng.permutation(len(candidates))  # ties are broken by chance
        order = polled[np.argsort(round_s[polled], kind="stable")]
        chosen = candidates[order[round_s[order] <= deadline_s][:k]]
        return assign(offers, chosen, self.power, deadline_s)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """FedCS decides from the offers alone."""
