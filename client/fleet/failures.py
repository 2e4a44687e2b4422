"""Failures: clients that crash while they train, or whose answer never comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerctl.modes import BoolArray, FloatArray, IntArray
from wattfed.client.fleet.columns import FleetColumns, number_column
from wattfed.client.fleet.counters import exponential, uniform

_CRASH, _SILENCE = 1, 2  # subjects of the random numbers


@dataclass(frozen=True, eq=False)
class Failures(FleetColumns):
    """How often clients fail; arrays of shape (n,).

    Attributes
    ----------
    crashes_per_h : FloatArray
        Crashes in an hour of training.
    silent_share : FloatArray
        Share of the rounds that a client trains to the end, and then is not heard of.
    """

    crashes_per_h: FloatArray = number_column(0.0, least=0.0)
    silent_share: FloatArray = number_column(0.0, least=0.0)

    def crash_after_s(self, rows: IntArray, seed: int, server_round: int) -> FloatArray:
        """Seconds of training in a round after which clients crash; infinite for never."""
        hours = exponential(seed, _CRASH, rows, server_round)
        with np.errstate(divide="ignore"):
            return np.asarray(3600 * hours / self.crashes_per_h[rows])

    def silent(self, rows: IntArray, seed: int, server_round: int) -> BoolArray:
        """Whether a round's answers of clients are lost."""
        return uniform(seed, _SILENCE, rows, server_round) < self.silent_share[rows]
