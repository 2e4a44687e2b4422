"""Weighted means of updates, by sums over fixed blocks of a round's clients.

Where all that an aggregation needs of a round is the mean of its updates, they are added up where
their clients train, and only sums travel. What a sum of floating-point numbers gives depends on
who is added to whom, so that this is fixed: by the order of the clients that were asked and by
their number, whatever runs the round and in however many processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wattfed.strategies.protocol import WEIGHT
from wattfed.strategies.round.numpy_reply import Numbers
from wattfed.strategies.round.updates import GlobalModel

Of = TypeVar("Of")


def blocks_of(ordered: Sequence[Of]) -> list[Sequence[Of]]:
    """What is of the clients of a round, in their order, in blocks of half the root of its length.

    Few sums travel then, and there are still enough to share out: 20 for 100 clients.
    """
    size = max(1, isqrt(len(ordered)) // 2)
    return [ordered[first : first + size] for first in range(0, len(ordered), size)]


class UpdateSum:
    """The sum of some updates of one model, each weighted by its examples.

    Of parameters it is the changes that are added: one that nobody changed stays what it is, and a
    small change of a large number is not lost. Floating buffers are added as they are, so that a
    mean of variances is no less than the least of them, whatever they began with.

    Attributes
    ----------
    n : int
        Updates in it.
    weight : float
        Sum of their weights.
    """

    def __init__(self) -> None:
        self.n = 0
        self.weight = 0.0
        self._totals: Numbers = {}
        self._metrics: dict[str, float] = {}
        self._others: dict[str, list[NDArray[Any]]] = {}

    def add(self, base: GlobalModel, arrays: Numbers, metrics: Mapping[str, float]) -> None:
        """Add a sound update: its trained arrays, which are not kept, and its metrics."""
        weight = metrics[WEIGHT]
        self.n, self.weight = self.n + 1, self.weight + weight
        for name in base.parameter_names:
            _add(self._totals, name, (arrays[name] - base.widened(name)) * weight)
        for name in base.floating_buffers:
            dtype = base.widened(name).dtype
            _add(self._totals, name, np.multiply(arrays[name], weight, dtype=dtype))
        for name, value in metrics.items():
            self._metrics[name] = self._metrics.get(name, 0.0) + weight * value
        for name in base.other_buffers:
            self._others.setdefault(name, []).append(arrays[name].copy())

    def join(self, other: UpdateSum) -> None:
        """Add the sum of others, of which this one then holds the arrays."""
        self.n, self.weight = self.n + other.n, self.weight + other.weight
        for name, total in other._totals.items():
            _add(self._totals, name, total)
        for name, value in other._metrics.items():
            self._metrics[name] = self._metrics.get(name, 0.0) + value
        for name, values in other._others.items():
            self._others.setdefault(name, []).extend(values)

    def mean(self, base: GlobalModel) -> Numbers:
        """The mean of the floating arrays, as they are computed with."""
        means = {name: total / self.weight for name, total in self._totals.items()}
        return means | {name: base.widened(name) + means[name] for name in base.parameter_names}

    def metrics(self) -> dict[str, float]:
        """The mean of each metric, and the whole weight."""
        means = {name: value / self.weight for name, value in self._metrics.items()}
        return {**means, WEIGHT: self.weight}

    def values(self, name: str) -> NDArray[Any]:
        """What each update has in an integer or Boolean array, shape (n, ...)."""
        return np.stack(self._others[name])


def joined(sums: Iterable[UpdateSum]) -> UpdateSum:
    """The sum of the sums of some blocks, in their order."""
    whole = UpdateSum()
    for one in sums:
        whole.join(one)
    return whole


def _add(totals: Numbers, name: str, values: NDArray[Any]) -> None:
    if name in totals:
        totals[name] += values
    else:
        totals[name] = np.asarray(values)
