"""CIFAR-10 from a local folder: 60,000 colour images of 32 x 32 pixels in ten classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from powerctl.errors import InvalidInput
from powerctl.torchvision_cpu import import_torchvision
from wattfed.client.tasks.sampled import Samples

_MEAN = torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None]
_STD = torch.tensor([0.2470, 0.2435, 0.2616])[:, None, None]


class Cifar10:
    """CIFAR-10 as torchvision reads it.

    Parameters
    ----------
    data_dir : str or Path
        The folder that holds ``cifar-10-batches-py``.
    """

    name = "cifar10"

    def __init__(self, data_dir: str | Path = "") -> None:
        self.data_dir = Path(data_dir)

    def model(self) -> nn.Module:
        """A convolutional network with group normalisation, which suits non-IID clients."""

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
            return [convolution, nn.GroupNorm(8, outputs), nn.ReLU(), nn.MaxPool2d(2)]

        layers = [*block(3, 32), *block(32, 64), *block(64, 128)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))

    def train_samples(self) -> Samples:
        """The 50,000 training images of CIFAR-10, normalised."""
        return self._read(train=True)

    def test_samples(self) -> Samples:
        """The 10,000 test images of CIFAR-10, normalised."""
        return self._read(train=False)

    def _read(self, train: bool) -> Samples:
        datasets = import_torchvision().datasets
        try:
            data = datasets.CIFAR10(self.data_dir, train=train, download=False)
        except RuntimeError:
            raise InvalidInput(
                f"no CIFAR-10 in {str(self.data_dir)!r}: get cifar-10-python.tar.gz from "
                "https://www.cs.toronto.edu/~kriz/cifar.html, unpack it there, and name that "
                "folder with --data-dir (run-config: data-dir)"
            ) from None
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).float() / 255
        return Samples((images - _MEAN) / _STD, torch.tensor(data.targets))
