"""Power-of-Choice: of some random candidates, those with the highest loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Experience
from wattfed.strategies.policies.sampling import smallest, weighted_sample
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory


@dataclass
class PowerOfChoice(Memory):
    """rpow-d (Cho, Wang and Joshi, arXiv 2010.01243): d candidates by data, the k of highest loss.

    Candidates are drawn without replacement, in proportion to their examples. The loss is the last
    that a client reported, so that the choice costs no message; a client never asked counts as
    infinite (not as NaN, which would sort last, nor as 0), and chance decides among equals.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    d : int
        Candidates; 0 takes twice the clients wanted. At least k, which is weighted sampling.
    """

    remembers = ("_known",)
    power: str = "slack"
    d: int = 0
    _known: Experience = field(default_factory=Experience, init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of the `k` candidates of highest loss."""
        self._known.know(offers.client)
        rows = offers.candidates(self.power)
        if not len(rows):
            return []
        d = max(k, self.d or 2 * k)
        polled = rng.permutation(rows[weighted_sample(offers.examples[rows].astype(float), d, rng)])
        loss = self._known.loss[offers.client[polled]]
        chosen = polled[smallest(-np.where(np.isnan(loss), np.inf, loss), k)]
        return assign(offers, chosen, self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember the losses that the clients report."""
        self._known.record(reports, server_round=0)
