"""What cuts a round of a simulated client short: it crashes, goes away, or is not heard of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wattfed.client.fleet import ClientProfile

CRASHED, LEFT, BATTERY, SILENT = "crashed", "left", "battery", "silent"


@dataclass(frozen=True)
class Dropout:
    """How a round ends for a client; nobody knows it beforehand.

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

    @classmethod
    def of(
        cls,
        profile: ClientProfile,
        seed: int,
        server_round: int,
        leaves_s: float,
        transfer_s: float,
    ) -> Dropout:
        """The fate of a client in a round, as its fleet file and the run's seed have it."""
        if profile.environment.is_quiet:
            return cls(math.inf, leaves_s, transfer_s, silent=False)
        failures, row = profile.environment.failures, np.array([profile.row])
        return cls(
            crash_s=float(failures.crash_after_s(row, seed, server_round)[0]),
            leaves_s=leaves_s,
            transfer_s=transfer_s,
            silent=bool(failures.silent(row, seed, server_round)[0]),
        )

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
            Whether training was cut short by the fate, and not by the deadline.
        """
        if cut:
            return CRASHED if self.crash_s <= self.training_s else LEFT
        if time_s + self.transfer_s > self.leaves_s:
            return LEFT
        return SILENT if self.silent else ""
