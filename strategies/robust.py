"""Flower's aggregations that withstand hostile clients, set for however many updates arrive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower

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


class MultiKrum(flower.MultiKrum):
    """The mean of all but the `hostile` updates that lie farthest out (Blanchard et al., 2017)."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Aggregate:
        """Leave out as many as are hostile, however many there are."""
        updates = list(replies)
        self.num_nodes_to_select = len(updates) - self.num_malicious_nodes
        return super().aggregate_train(server_round, updates)


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
