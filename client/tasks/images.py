"""Generated images that can be learned: as many as a large fleet needs, without a download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from powerctl.errors import InvalidInput
from wattfed.client.tasks.sampled import Samples

_VARIANTS = 3  # patterns that carry one label
_WAVES = 3  # of a pattern, in each direction
_SHIFT = 1  # pixels by which an image may be moved
_SCALE = np.float32(0.3)  # about the spread of real images between 0 and 1
_CHUNK = 1 << 16  # samples made at a time, so that little memory is needed beside the images
_TEST = 1  # tells the test's random numbers from those of the training


@dataclass(frozen=True)
class Images:
    """Smooth random patterns, three to a label, each sample moved by a pixel and with noise.

    How hard it is to learn is said by `noise`; how unlike the clients are, by the run's skew.

    Parameters
    ----------
    samples, test : int
        Images to train with, over all clients, and to test with.
    labels : int
        Classes.
    size : int
        Pixels along a side, even.
    noise : float
        Of a pixel, relative to the patterns' own standard deviation.
    seed : int
        Of the patterns and the samples.
    """

    samples: int = 20_000
    test: int = 2_000
    labels: int = 10
    size: int = 8
    noise: float = 0.7
    seed: int = 0

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for key in ("samples", "test", "labels"):
            if getattr(self, key) < 1:
                raise InvalidInput(f"{self.name}: {key} must be at least 1")
        if self.size < 4 or self.size % 2:
            raise InvalidInput(f"{self.name}: size must be even and at least 4, got {self.size}")
        if not self.noise >= 0:
            raise InvalidInput(f"{self.name}: noise cannot be negative, got {self.noise:g}")

    def train_samples(self) -> Samples:
        """The training images, labels in equal shares."""
        return self._make(self.samples, np.random.default_rng((self.seed, 0)))

    def test_samples(self) -> Samples:
        """The test images, labels in equal shares."""
        return self._make(self.test, np.random.default_rng((self.seed, _TEST)))

    @cached_property
    def _patterns(self) -> NDArray[np.float32]:
        """Shape (labels, variants, size, size): low frequencies only, mean 0 and deviation 1."""
        rng = np.random.default_rng((self.seed, 2))
        shape = (self.labels, _VARIANTS, self.size, self.size)
        spectrum = np.zeros(shape, dtype=np.complex128)
        low = (self.labels, _VARIANTS, _WAVES, _WAVES)
        spectrum[..., :_WAVES, :_WAVES] = rng.standard_normal(low) + 1j * rng.standard_normal(low)
        spectrum[..., 0, 0] = 0
        fields = np.fft.ifft2(spectrum).real
        return np.asarray(fields / fields.std(axis=(2, 3), keepdims=True), dtype=np.float32)

    def _make(self, n: int, rng: np.random.Generator) -> Samples:
        labels = rng.permutation(np.arange(n) % self.labels)
        images = np.empty((n, 1, self.size, self.size), dtype=np.float32)
        for start in range(0, n, _CHUNK):
            part = labels[start : start + _CHUNK]
            variants = rng.integers(0, _VARIANTS, len(part))
            down, right = rng.integers(-_SHIFT, _SHIFT + 1, (2, len(part), 1))
            rows = (np.arange(self.size) + down) % self.size
            columns = (np.arange(self.size) + right) % self.size
            moved = self._patterns[
                part[:, None, None],
                variants[:, None, None],
                rows[:, :, None],
                columns[:, None, :],
            ]
            noise = rng.standard_normal(moved.shape, dtype=np.float32)
            images[start : start + _CHUNK, 0] = _SCALE * (moved + np.float32(self.noise) * noise)
        return Samples(torch.from_numpy(images), torch.from_numpy(labels))


class ImagesCnn(Images):
    """Learned by a small convolutional network."""

    name = "images-cnn"

    def model(self) -> nn.Module:
        """Two convolutions and a linear layer (about 4,000 parameters at 8 x 8 pixels)."""
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * (self.size // 2) ** 2, self.labels),
        )


class ImagesMlp(Images):
    """Learned by a perceptron with one hidden layer."""

    name = "images-mlp"

    def model(self) -> nn.Module:
        """64 hidden units (about 5,000 parameters at 8 x 8 pixels)."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(self.size**2, 64),
            nn.ReLU(),
            nn.Linear(64, self.labels),
        )
