"""The task that trains nothing: what is left is the cost of the simulation itself."""

from __future__ import annotations

import torch
from torch import nn

from wattfed.client.tasks.sampled import Samples

_SAMPLES = 131_072
_SHARED_PARTS = 8192  # of sixteen samples, a minibatch of most workloads
_TEST_SAMPLES = 10
_LABELS = 10


class Noop:
    """A model of one layer and minibatches that do nothing; boards are charged for them as always.

    Samples have a label, so that they are split over clients like real ones, and one zero. In a
    pool of more clients than samples, many share a part.
    """

    name = "noop"
    shared_parts = _SHARED_PARTS

    def model(self) -> nn.Module:
        """One linear layer, which has twenty parameters."""
        return nn.Linear(1, _LABELS)

    def train_samples(self) -> Samples:
        """131,072 zeros of ten labels."""
        return _zeros(_SAMPLES)

    def test_samples(self) -> Samples:
        """One zero of each label."""
        return _zeros(_TEST_SAMPLES)

    def minibatches(self, n: int, batch_size: int) -> list[None]:
        """An epoch of a client with so many samples; there is nothing in it."""
        return [None] * -(-n // batch_size)

    def make_optimizer(self) -> None:
        """There is no optimizer, for nothing is optimised."""

    def train_step(self) -> float:
        """A loss, and the model as it is."""
        return 1.0


def _zeros(n: int) -> Samples:
    return Samples(torch.zeros(n, 1), torch.arange(n) % _LABELS)
