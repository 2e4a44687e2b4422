"""Whether clients that were asked to train answer in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.state import Memory

_LEAST = 0.1  # who never delivers keeps so much of its utility, and with it a chance to recover


@dataclass
class Delivery(Memory):
    """Arrays indexed by the client's number, which grow as clients appear.

    Errors of a client's predictions are not corrected here: devices learn from them, and their next
    offer is better. What a device cannot tell of itself is that it went away.

    Attributes
    ----------
    share : FloatArray
        Share of the rounds in which a client, when asked, delivers: a moving average that starts
        at 1. Who is silent, declines, or is too late to be used delivers nothing.
    """

    remembers = ("share", "_asked")
    share: FloatArray = field(default_factory=lambda: np.zeros(0))
    _asked: frozenset[int] = frozenset()

    def know(self, clients: IntArray) -> None:
        """Make room for some clients."""
        extra = int(clients.max(initial=-1)) + 1 - len(self.share)
        if extra > 0:
            self.share = np.pad(self.share, (0, extra), constant_values=1.0)

    def ask(self, clients: Sequence[int]) -> None:
        """These are asked to train in the round that starts."""
        self._asked = frozenset(clients)

    def record(self, reports: Sequence[RoundReport]) -> None:
        """Enter the round's reports; who was asked and is not among them was silent."""
        delivered = {report.client for report in reports if report.minibatches and report.used}
        concerned = np.array(sorted(delivered | self._asked), dtype=np.int64)
        self.know(concerned)
        came = np.isin(concerned, sorted(delivered))
        self.share[concerned] = np.maximum(_LEAST, (self.share[concerned] + came) / 2)
        self._asked = frozenset()
