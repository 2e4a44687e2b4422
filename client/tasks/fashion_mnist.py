"""Fashion-MNIST as Debian packages it: 70,000 grey images of 28 x 28 pixels of clothes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from powerctl.errors import InvalidInput
from powerctl.reading import misread, open_regular
from wattfed.client.tasks.sampled import Samples

_DEBIAN = "/usr/share/datasets/fashion-mnist"
_SIDE = 28
_HEADS = {"images": 16, "labels": 8}  # bytes before the pixels and the labels, of IDX
_MOST, _MOST_TESTS = 60_000, 10_000  # in its files


class FashionMnist:
    """Xiao et al. 2017, arXiv 1708.07747; nothing is downloaded.

    Parameters
    ----------
    data_dir : str or Path
        The folder with its four files; by default where Debian's dataset-fashion-mnist has it.
    samples : int
        Training images to take, the first ones, of the 60,000.
    tests : int
        Test images, the first ones, of the 10,000.
    """

    name = "fashion-mnist"

    def __init__(
        self, data_dir: str | Path = "", samples: int = 20_000, tests: int = 10_000
    ) -> None:
        for what, number, most in (("samples", samples, _MOST), ("tests", tests, _MOST_TESTS)):
            if not 1 <= number <= most:
                raise InvalidInput(f"{self.name}: {what} is 1 to {most}, got {number}")
        self._folder = Path(data_dir or _DEBIAN)
        self._samples, self._tests = samples, tests

    def model(self) -> nn.Module:
        """A small convolutional network (about 29,000 parameters)."""
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, 34),
            nn.ReLU(),
            nn.Linear(34, 10),
        )

    def train_samples(self) -> Samples:
        """The training images, pixels from 0 to 1."""
        return self._read("train", self._samples)

    def test_samples(self) -> Samples:
        """The test images, pixels from 0 to 1."""
        return self._read("t10k", self._tests)

    def _read(self, part: str, n: int) -> Samples:
        pixels = self._array(part, "images", n * _SIDE**2).reshape(n, 1, _SIDE, _SIDE)
        labels = self._array(part, "labels", n)
        return Samples(torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels).long())

    def _array(self, part: str, what: str, n: int) -> NDArray[np.uint8]:
        path = self._folder / f"{part}-{what}-idx{3 if what == 'images' else 1}-ubyte.gz"
        if not path.is_file():
            raise InvalidInput(
                f"no Fashion-MNIST in {self._folder}: apt install dataset-fashion-mnist, or name "
                "the folder of its files with --data-dir (run-config: data-dir)"
            )
        with misread(str(path)), open_regular(path) as file, gzip.GzipFile(fileobj=file) as content:
            head = _HEADS[what]
            read = content.read(head + n)
            if len(read) < head + n:
                raise InvalidInput(f"{len(read)} bytes where at least {head + n} are expected")
        values = np.frombuffer(read, np.uint8, offset=head)
        if what == "labels" and values.max() > 9:
            raise InvalidInput(f"{path}: a label of {values.max()}; expected 0 to 9")
        return values.copy()
