"""What the rounds so far have told of each client: its losses, and whether it delivers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.state import Memory


def statistical_utility(report: RoundReport) -> float:
    """Oort's utility of a client: its samples times the root mean square of their losses.

    Where the client did not measure the root mean square, its mean loss, which is never greater,
    stands in. A client whose loss is not finite has none.

    References
    ----------
    Lai et al., Oort, OSDI 2021, section 4.2.
    """
    loss = max(report.rms_loss, report.loss if math.isfinite(report.loss) else 0.0)
    return report.examples * loss


@dataclass
class Experience(Memory):
    """Arrays indexed by the client's number, which grow as clients appear.

    Attributes
    ----------
    count, last_round : IntArray
        How often a client trained, and when last; 0 if never.
    loss, utility : FloatArray
        Last finite training loss, and statistical utility; NaN if never known.
    """

    remembers = ("count", "last_round", "loss", "utility")
    count: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    last_round: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    loss: FloatArray = field(default_factory=lambda: np.zeros(0))
    utility: FloatArray = field(default_factory=lambda: np.zeros(0))

    def know(self, clients: IntArray) -> None:
        """Make room for some clients."""
        extra = int(clients.max(initial=-1)) + 1 - len(self.count)
        if extra <= 0:
            return
        for item in fields(self):
            column = getattr(self, item.name)
            nothing = 0 if column.dtype.kind == "i" else np.nan
            setattr(self, item.name, np.pad(column, (0, extra), constant_values=nothing))

    def record(self, reports: Sequence[RoundReport], server_round: int) -> None:
        """Enter the reports of those that trained in a round."""
        trained = [report for report in reports if report.minibatches]
        self.know(np.array([report.client for report in trained], dtype=np.int64))
        for report in trained:
            client = report.client
            self.count[client] += 1
            self.last_round[client] = server_round
            self.utility[client] = statistical_utility(report)
            if math.isfinite(report.loss):
                self.loss[client] = report.loss

    def loss_or_highest(self, clients: IntArray) -> FloatArray:
        """Last losses; the highest that is known of anyone (1 before any) for who has none."""
        highest = float(np.fmax.reduce(self.loss, initial=-np.inf))  # fmax passes over NaN
        loss = self.loss[clients]
        return np.where(np.isnan(loss), highest if np.isfinite(highest) else 1.0, loss)


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
