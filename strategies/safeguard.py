"""What stands between updates and an aggregation: a quorum, and a bound on their length."""

from __future__ import annotations

from collections.abc import Iterable
from logging import WARNING

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray


class Safeguard(FedAvg):
    """One of Flower's strategies that gets updates only if they are enough, and none that is long.

    Parameters
    ----------
    aggregation : FedAvg
        The strategy.
    min_reports : int
        With fewer updates in a round the model stays as it is.
    clip_norm : float
        Updates that are longer than so many medians of the round's lengths (L2 norms of the change
        of the model) are shortened to that; 0 leaves all. Clipping at the median bounds what any
        minority can do by scaling its updates up, and needs no length chosen before (adaptive
        clipping: Andrew et al., NeurIPS 2021).
    """

    def __init__(self, aggregation: FedAvg, min_reports: int = 1, clip_norm: float = 0.0) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.min_reports = min_reports
        self.clip_norm = clip_norm
        self._base = ArrayRecord()

    def __repr__(self) -> str:
        bounds = f"min_reports={self.min_reports}, clip_norm={self.clip_norm:g}"
        return f"{type(self.aggregation).__name__}, {bounds}"

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The strategy's messages; the model they carry is what lengths are measured from."""
        self._base = arrays
        return self.aggregation.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The strategy's aggregate of the shortened updates; nothing without the quorum."""
        updates = list(replies)
        if len(updates) < self.min_reports:
            log(
                WARNING,
                "round %s: %s updates, min-reports is %s: the model stays as it was",
                *(server_round, len(updates), self.min_reports),
            )
            return None, None
        if self.clip_norm:
            self._clip(updates)
        return self.aggregation.aggregate_train(server_round, updates)

    def _clip(self, updates: list[Message]) -> None:
        """Shorten the updates that are too long, in place."""
        base = {name: array.numpy() for name, array in self._base.items()}
        changes = [_changes(update, base) for update in updates]
        lengths = np.array([np.sqrt(sum((c**2).sum() for c in each.values())) for each in changes])
        longest = self.clip_norm * float(np.median(lengths))
        for update, change, length in zip(updates, changes, lengths, strict=True):
            if length > longest:
                ((key, record),) = update.content.array_records.items()
                shortened = {
                    name: Array((base[name] + delta * (longest / length)).astype(base[name].dtype))
                    for name, delta in change.items()
                }
                update.content[key] = ArrayRecord({**record, **shortened})


def _changes(
    update: Message, base: dict[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float64]]:
    """How an update changes the model, in float64; counters, which are integers, are left out."""
    (record,) = update.content.array_records.values()
    return {
        name: record[name].numpy().astype(np.float64) - array
        for name, array in base.items()
        if np.issubdtype(array.dtype, np.floating)
    }
