"""The embedded task: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from powerctl.digits import load_digits
from wattfed.client.tasks.sampled import Samples


class Digits:
    """Real images that ship with scikit-learn; every fifth one is kept for the central test."""

    name = "digits"

    def model(self) -> nn.Module:
        """A small convolutional network (about 19,000 parameters)."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 28),
            nn.ReLU(),
            nn.Linear(28, 10),
        )

    def train_samples(self) -> Samples:
        """The 1,437 images to train with."""
        return self._parts[0]

    def test_samples(self) -> Samples:
        """The 360 images to test with."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[Samples, Samples]:
        images, labels = load_digits()
        inputs = torch.from_numpy(images).float()[:, None] / 16
        samples = Samples(inputs, torch.from_numpy(labels))
        is_test = torch.arange(len(samples)) % 5 == 0
        train, test = (torch.flatten(torch.nonzero(part)) for part in (~is_test, is_test))
        return samples.take(train), samples.take(test)
