"""Clients' updates: whether one is sound, and how late ones join an aggregation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray

from strategies.closing import Flight
from strategies.held import HeldArray, HeldReply, Numbers
from strategies.staleness import staleness_weights

_WEIGHT = "num-examples"  # by which Flower's strategies weigh
Reply = Message | HeldReply


class Base:
    """The global model from which the clients of a round start."""

    def __init__(self, arrays: ArrayRecord) -> None:
        self._shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        self._arrays = arrays

    @cached_property
    def numbers(self) -> Numbers:
        """The model's arrays."""
        return _numbers(self._arrays)

    def fits(self, reply: Reply) -> bool:
        """Whether an update has the model's shapes and finite numbers only."""
        records: list[Mapping[str, Array | HeldArray]] = list(reply.content.array_records.values())
        if len(records) != 1 or set(records[0]) != set(self._shapes):
            return False
        return all(
            tuple(array.shape) == self._shapes[name] and bool(np.isfinite(array.numpy()).all())
            for name, array in records[0].items()
        )


class Update:
    """A sound update, and where it started from."""

    def __init__(self, reply: Reply, base: Base) -> None:
        self.reply = reply
        self.base = base

    def change(self) -> Numbers:
        """Trained arrays less those that training began with."""
        (record,) = self.reply.content.array_records.values()
        began = self.base.numbers
        return {name: value - began[name] for name, value in _numbers(record).items()}


def replies_to_aggregate(
    arrived: Sequence[Flight[Update]], base: Base, late_rule: str
) -> list[Reply]:
    """The replies of updates that have come, as an aggregation takes them.

    Where all are of this round, they are the replies. A late one brings its change to the present
    model, and its examples count by the rule for late updates.

    Parameters
    ----------
    arrived : sequence of Flight
        Those without an update are left out.
    base : Base
        The present global model.
    late_rule : str
        Of `strategies.staleness`.
    """
    updates = [(flight.update, flight.report) for flight in arrived if flight.update is not None]
    staleness = np.array([report.staleness for _, report in updates], dtype=np.int64)
    if not staleness.any():
        return [update.reply for update, _ in updates]
    changes = [update.change() for update, _ in updates]
    deviation = _deviations(changes, staleness)
    weights = staleness_weights(staleness, deviation, late_rule)
    return [
        _moved(update.reply, change, base, float(weight)) if late else update.reply
        for (update, _), change, late, weight in zip(
            updates, changes, staleness > 0, weights / weights.max(), strict=True
        )
    ]


def _deviations(changes: Sequence[Numbers], staleness: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far each late change, joining the n fresh ones, would move their average, squared."""
    flat = np.array([np.concatenate([v.ravel() for v in c.values()]) for c in changes])
    fresh = flat[staleness == 0]
    centre = fresh.mean(axis=0) if len(fresh) else np.zeros(flat.shape[1])
    return np.asarray((((flat - centre) / (len(fresh) + 1)) ** 2).sum(axis=1), dtype=np.float64)


def _moved(reply: Reply, change: Numbers, base: Base, weight: float) -> HeldReply:
    """A reply with its change brought to another model, and its examples weighed."""
    moved = {name: base.numbers[name] + delta for name, delta in change.items()}
    (metrics,) = reply.content.metric_records.values()
    numbers = cast(dict[str, float], dict(metrics))
    return HeldReply(moved, {**numbers, _WEIGHT: numbers[_WEIGHT] * weight})


def _numbers(record: Mapping[str, Array | HeldArray]) -> Numbers:
    return {name: array.numpy() for name, array in record.items()}
