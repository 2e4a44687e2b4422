"""The task that trains nothing: what is left is the cost of the simulation itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import nn

from wattfed.client.tasks.task import Samples

_SAMPLES = 131_072  # enough for pools of 100,000 clients
_TEST_SAMPLES = 10
_LABELS = 10


class Noop:
    """A model of one layer and minibatches that do nothing; boards are charged for them as always.

    Samples have a label, so that they are split over clients like real ones, and one zero.
    """

    name = "noop"

    def model(self) -> nn.Module:
        """Twenty parameters."""
        return nn.Linear(1, _LABELS)

    def train_samples(self) -> Samples:
        """131,072 zeros of ten labels."""
        return self._train

    def test_samples(self) -> Samples:
        """One zero of each label."""
        return self._test

    def training(self) -> NoTraining:
        """In place of SGD."""
        return NoTraining()

    @cached_property
    def _test(self) -> Samples:
        return _zeros(_TEST_SAMPLES)

    @cached_property
    def _train(self) -> Samples:
        return _zeros(_SAMPLES)


class NoTraining:
    """Leaves a model as it is; every minibatch has the loss 1."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def steps(self) -> Iterator[Callable[[], None]]:
        """One callable per minibatch."""
        while True:
            yield self._step

    def _step(self) -> None:
        self.losses.append(1.0)


def _zeros(n: int) -> Samples:
    return Samples(torch.zeros(n, 1), torch.arange(n) % _LABELS)
