"""Aggregations that withstand hostile clients, set for however many updates arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from wattfed.strategies.round.numpy_reply import Numbers

Aggregate = tuple[ArrayRecord | None, MetricRecord | None]


class TrimmedMean(flower.FedTrimmedAvg):
    """Of each number, the mean without the `hostile` highest and lowest (Yin et al., ICML 2018)."""

    def __init__(self, hostile: int, **options: Any) -> None:
        super().__init__(**options)
        self.hostile = hostile

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """Trim as many as are hostile, whatever share of the updates that is."""
        updates = list(replies)
        self.beta = (self.hostile + 0.1) / len(updates)  # Flower rounds the share's number down
        return super().aggregate_train(server_round, updates)


class Krum(flower.FedAvg):
    """The one update that lies nearest to the others (Blanchard et al., NeurIPS 2017).

    `wattfed.strategies.round.aggregation` has it select, and aggregate what is selected.
    """

    def __init__(self, hostile: int, **options: Any) -> None:
        super().__init__(**options)
        self.hostile = hostile

    def selects(self, n: int) -> int:
        """How many of n updates it takes."""
        return 1

    def select(self, updates: Sequence[Numbers]) -> list[int]:
        """Which of some clients' parameters it takes, the nearest to the others first."""
        return krum_order(updates, self.hostile)[: self.selects(len(updates))]


class MultiKrum(Krum):
    """The mean of all but the `hostile` updates that lie farthest out (Blanchard et al., 2017)."""

    def selects(self, n: int) -> int:
        """How many of n updates it takes: all but the hostile."""
        return n - self.hostile


class Bulyan(Krum):
    """Near the median of the updates that Krum selects (El Mhamdi et al., ICML 2018).

    Of n updates, of which f are hostile, it takes theta = n - 2f; and of each number the mean of
    the beta = theta - 2f values that are nearest to their median.
    """

    def selects(self, n: int) -> int:
        """How many of n updates it takes: theta."""
        return n - 2 * self.hostile

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """The mean around the median, number by number."""
        updates = list(replies)
        _, metrics = super().aggregate_train(server_round, updates)
        (records,) = zip(*(u.content.array_records.values() for u in updates), strict=True)
        beta = len(updates) - 2 * self.hostile
        arrays = {}
        for name in records[0]:
            values = np.stack([record[name].numpy() for record in records])
            distances = np.abs(values - np.median(values, axis=0))
            nearest = np.argpartition(distances, beta - 1, axis=0)[:beta]
            mean = np.mean(np.take_along_axis(values, nearest, axis=0), axis=0)
            arrays[name] = Array(np.asarray(mean))
        return ArrayRecord(arrays), metrics


def krum_order(updates: Sequence[Numbers], hostile: int) -> list[int]:
    """The updates, from the one that lies nearest to the others to the one farthest out.

    By Krum's score (Blanchard et al., NeurIPS 2017, section 4): s(i), the sum of the squared
    distances from update i to the n - f - 2 others that are nearest to it.

    Flower's own score (1.30 to 1.41) is not used: it takes |a|^2 + |b|^2 - 2ab in the updates' own
    precision, in which the distances between updates of a large model drown, then leaves out
    whatever came out smallest in place of the update itself; it flattens every update in the order
    in which that client happened to send its arrays; and it counts integer buffers.

    Parameters
    ----------
    updates : sequence of dict of ndarray
        Parameters of n clients, by the same names.
    hostile : int
        f: how many of them may be.
    """
    from scipy.spatial.distance import pdist, squareform  # only here: it loads slowly

    n = len(updates)
    distances = np.zeros((n, n))
    for name in updates[0]:
        flat: NDArray[Any] = np.stack([update[name].ravel() for update in updates])
        distances += squareform(pdist(flat, "sqeuclidean"))
    np.fill_diagonal(distances, np.inf)  # not to itself
    nearest = np.sort(distances, axis=1)[:, : max(1, n - hostile - 2)]
    return [int(i) for i in np.argsort(nearest.sum(axis=1), kind="stable")]


def least_updates(aggregation: str, hostile: int) -> int:
    """How many updates an aggregation needs to withstand some hostile ones among them.

    Parameters
    ----------
    aggregation : str
        A name of the catalogue; those that withstand none need one update.
    hostile : int
        Of them.
    """
    if aggregation in ("krum", "multikrum"):
        return 2 * hostile + 3
    if aggregation == "bulyan":  # El Mhamdi et al., ICML 2018
        return 4 * hostile + 3
    return 2 * hostile + 1 if aggregation == "fedtrimmedavg" else 1
