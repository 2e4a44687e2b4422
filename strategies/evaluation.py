"""Evaluation on the clients: who evaluates a round's model, and what comes of their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import IntArray
from wattfed.strategies.protocol import EvaluationReport

AUTO, SERVER, CLIENTS, BOTH = "auto", "server", "clients", "both"
PLACES = (AUTO, SERVER, CLIENTS, BOTH)
_MOST_METRICS, _LONGEST_NAME, _MOST = 100, 100, 1e39  # of one client; single precision ends there
_ASKED = 1  # tells these random numbers from those of the selection


@dataclass(frozen=True)
class EvaluationPlan:
    """Where a run's models are evaluated.

    Attributes
    ----------
    where : str
        ``"server"``, ``"clients"`` or ``"both"``; ``"auto"`` is the server where the task has
        central data, else the clients.
    every : int
        Clients evaluate after each so many rounds.
    share : float
        Of the clients that can take part, at least one; drawn anew each time.
    """

    where: str = AUTO
    every: int = 1
    share: float = 0.2

    def __post_init__(self) -> None:
        if self.where not in PLACES:
            raise UnknownName("place of evaluation", self.where, PLACES)
        if self.every < 1:
            raise InvalidInput(f"evaluate-every must be at least 1, got {self.every}")
        if not 0 < self.share <= 1:
            raise InvalidInput(f"evaluate-share is above 0 and up to 1, got {self.share:g}")

    def on_server(self, has_data: bool) -> bool:
        """Whether the server evaluates, which may have central data."""
        return has_data if self.where == AUTO else self.where in (SERVER, BOTH)

    def on_clients(self, has_data: bool) -> bool:
        """Whether clients evaluate, where the server may have central data."""
        return not has_data if self.where == AUTO else self.where in (CLIENTS, BOTH)

    def who(self, able: IntArray, seed: int, server_round: int) -> list[int]:
        """The clients that evaluate after a round, ascending; none if it is not due."""
        if server_round % self.every or not len(able):
            return []
        rng = np.random.default_rng((seed, server_round, _ASKED))
        n = math.ceil(self.share * len(able))
        return sorted(rng.choice(np.sort(able), n, replace=False).tolist())


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The first hundred metrics of a client that are numbers, not infinite, with a printable name.

    It comes from another host, and what one client calls its metrics must not end the run.
    """
    return {
        name: float(value)
        for name, value in islice(metrics.items(), _MOST_METRICS)
        if isinstance(value, (int, float))
        and (value != value or abs(value) <= _MOST)
        and name.isprintable()
        and 0 < len(name) <= _LONGEST_NAME
    }


def weighted(replies: Iterable[tuple[EvaluationReport, Mapping[str, float]]]) -> dict[str, float]:
    """The mean of each metric over the clients that gave a number of it, by their examples.

    NaN does not count (a client may lack what a metric is of) unless all that was given is NaN.
    """
    told: dict[str, list[tuple[int, float]]] = {}
    for report, metrics in replies:
        for name, value in metrics.items():
            told.setdefault(name, []).append((report.examples, value))
    return {name: _mean(pairs) for name, pairs in told.items()}


def _mean(pairs: Sequence[tuple[int, float]]) -> float:
    known = [(weight, value) for weight, value in pairs if weight and not math.isnan(value)]
    if not known:
        return math.nan
    weights, values = np.array(known, dtype=np.float64).T
    return float((weights * values).sum() / weights.sum())
