"""What sets of clients teach, label by label, against what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray, IntArray


def by_label(utility: FloatArray, label_counts: FloatArray) -> FloatArray:
    """The utility of each client, shared out over the labels of its examples.

    Parameters
    ----------
    utility : FloatArray, shape (n,)
        Of each client.
    label_counts : FloatArray, shape (n, labels)
        As in the offers; noise for privacy may have made some of them negative. A client that does
        not tell counts as having all labels alike; where nobody tells, there is one label.

    Returns
    -------
    FloatArray, shape (n, labels)
    """
    counts = np.maximum(label_counts, 0.0)
    if not counts.any():
        return utility[:, None]
    total = counts.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, counts / np.maximum(total, 1e-12), 1 / counts.shape[1])
    return np.asarray(utility[:, None] * shares)


@dataclass(frozen=True)
class Worth:
    """What a set of clients teaches against what it costs, as a logarithm.

    log(sum over labels of (utility of the label in the set)^gamma) - log(cost of the set), so that
    a label which a set has plenty of adds less than one that it lacks, and twice the clients teach
    less than twice as much.

    Attributes
    ----------
    labels : FloatArray, shape (n, labels)
        Utility of each client, by label.
    cost_j : FloatArray, shape (n,)
        Of each client, finite.
    fixed_j : float
        Cost of the set as such.
    gamma : float
        How slowly returns diminish, 0 to 1.
    """

    labels: FloatArray
    cost_j: FloatArray
    fixed_j: float
    gamma: float

    def of(self, labels: FloatArray, cost_j: FloatArray) -> FloatArray:
        """The worth of sets with so much utility by label, shape (..., labels), and such costs."""
        return np.asarray(np.log((labels**self.gamma).sum(axis=-1)) - np.log(cost_j + self.fixed_j))

    def of_prefixes(self) -> FloatArray:
        """The worth of the first client, of the first two, and so on; shape (n,)."""
        return self.of(np.cumsum(self.labels, axis=0), np.cumsum(self.cost_j))

    def greedy(self, at_least: int, at_most: int) -> tuple[float, IntArray]:
        """A set that grows by the client that makes it worth most, while it gains by it.

        Returns
        -------
        tuple of float, IntArray
            The worth, and the indices in the order of their choice.
        """
        chosen: list[int] = []
        labels, cost_j, worth = np.zeros(self.labels.shape[1]), 0.0, -np.inf
        free = np.ones(len(self.cost_j), dtype=bool)
        while len(chosen) < min(at_most, len(free)):
            larger = self.of(labels + self.labels, cost_j + self.cost_j)
            best = int(np.where(free, larger, -np.inf).argmax())
            if len(chosen) >= at_least and larger[best] <= worth:
                break
            worth = float(larger[best])
            labels, cost_j = labels + self.labels[best], cost_j + float(self.cost_j[best])
            chosen.append(best)
            free[best] = False
        return worth, np.array(chosen, dtype=np.int64)
