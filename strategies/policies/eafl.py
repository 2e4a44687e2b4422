"""EAFL: Oort for clients that run on batteries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.oort import Oort


@dataclass
class EAFL(Oort):
    """Oort with a reward for charge (Arouj and Abdelmoniem, EAFL, FedEdge 2022, arXiv 2208.04505).

    The reward is f U + (1 - f) P, with U the utility scaled to [0, 1] and P the share of the
    battery that is left after the predicted cost of the round (1 on mains). All else is Oort's,
    here with the paper's defaults. A client whose battery the round would empty is not asked. What
    others do and this does not: divide by zero when all utilities are equal, and reward the
    charge before the round instead of after it.

    Parameters
    ----------
    f : float
        Weight of utility against charge.
    """

    f: float = 0.25

    def _candidates(self, offers: Offers) -> IntArray:
        rows = offers.candidates(self.power)
        return rows[self._left_j(offers, rows) > 0]

    def _reward(self, utility: FloatArray, offers: Offers, rows: IntArray) -> FloatArray:
        least, most = float(utility.min()), float(utility.max())
        capacity_j = offers.battery_capacity_j[rows]
        charge = np.ones(len(rows))
        np.divide(self._left_j(offers, rows), capacity_j, out=charge, where=np.isfinite(capacity_j))
        scaled = (utility - least) / max(most - least, 1e-4)
        return self.f * scaled + (1 - self.f) * np.clip(charge, 0.0, 1.0)

    def _left_j(self, offers: Offers, rows: IntArray) -> FloatArray:
        """What the battery holds after a round at the fastest pace, transfer included."""
        train_j = offers.fastest_energy_j(self.power)[rows]
        transfer_j = offers.idle_power_w[rows] * offers.transfer_s[rows]
        cost_j = train_j + transfer_j + offers.fixed_j[rows]
        return offers.battery_j[rows] - cost_j
