"""What cuts a round of a simulated client short: it crashes, goes away, or is not heard of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powerctl.modes import BoolArray, FloatArray, IntArray
from wattfed.client.fleet.columns import FleetColumns, number_column
from wattfed.client.fleet.counters import exponential, uniform

CRASHED, LEFT, BATTERY, SILENT = "crashed", "left", "battery", "silent"
_CRASH, _SILENCE = 1, 2  # subjects of the random numbers


@dataclass(frozen=True)
class Dropout:
    """What cuts a client short in a round; nobody knows it beforehand.

    Attributes
    ----------
    crash_s : float
        Seconds of training until it crashes.
    leaves_s : float
        Seconds of the round until it goes away.
    transfer_s : float
        Of the round: one half before the training, one half after it.
    silent : bool
        Whether its answer is lost.
    """

    crash_s: float
    leaves_s: float
    transfer_s: float
    silent: bool

    @property
    def training_s(self) -> float:
        """Seconds of training after which it is cut short; infinite if it is not."""
        return min(self.crash_s, max(0.0, self.leaves_s - self.transfer_s / 2))

    def lost(self, time_s: float, cut: bool) -> str:
        """Why the server does not get the update; empty if it does.

        Parameters
        ----------
        time_s : float
            That was trained.
        cut : bool
            Whether training was cut short by this, and not by the deadline.
        """
        if cut:
            return CRASHED if self.crash_s <= self.training_s else LEFT
        if time_s + self.transfer_s > self.leaves_s:
            return LEFT
        return SILENT if self.silent else ""


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

    def dropout(
        self, row: int, seed: int, server_round: int, leaves_s: float, transfer_s: float
    ) -> Dropout:
        """What cuts a client short in a round, in which it goes away after some seconds."""
        rows, crash_s, silent = np.array([row]), math.inf, False
        if self.crashes_per_h[row]:  # a draw for who never fails is a tenth of an idle round
            crash_s = float(self.crash_after_s(rows, seed, server_round)[0])
        if self.silent_share[row]:
            silent = bool(self.silent(rows, seed, server_round)[0])
        return Dropout(crash_s, leaves_s, transfer_s, silent)
