"""The texts of Unix's fortune as Debian packages them, of many collections unlike each other."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from powerctl.errors import InvalidInput
from powerctl.modes import IntArray
from powerctl.reading import read_bytes
from wattfed.client.tasks.sampled import Samples

_DEBIAN = "/usr/share/games/fortunes"
_ALPHABET = "\n abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()"
_NUMBERS = {character: number for number, character in enumerate(_ALPHABET)}
_WINDOW = 24  # characters before the one to be foretold
_STRIDE = 7  # between two such; prime to the usual lengths of lines
_TEST_EVERY = 5  # every fifth text is kept for the central test
_EMBEDDING, _HIDDEN = 16, 96


class Fortunes:
    """The next character of short texts; who collected them is a natural client.

    Parameters
    ----------
    data_dir : str or Path
        The folder of the collections, texts separated by lines of ``%``; by default where Debian's
        fortunes and fortunes-min have them.
    samples : int
        Characters to foretell at most, over all clients, spread over all texts.
    """

    name = "fortunes"

    def __init__(self, data_dir: str | Path = "", samples: int = 40_000) -> None:
        if samples < 1:
            raise InvalidInput(f"{self.name}: samples must be at least 1, got {samples}")
        self._folder = Path(data_dir or _DEBIAN)
        self._samples = samples

    def model(self) -> nn.Module:
        """Embedded characters and two linear layers (Bengio et al. 2003; 43,000 parameters)."""
        n = len(_ALPHABET) + 1  # and one for all others
        return nn.Sequential(
            nn.Embedding(n, _EMBEDDING),
            nn.Flatten(),
            nn.Linear(_WINDOW * _EMBEDDING, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, n),
        )

    def train_samples(self) -> Samples:
        """Windows of text and the characters that follow, of all but every fifth text."""
        return self._parts[0]

    def test_samples(self) -> Samples:
        """The same of every fifth text."""
        return self._parts[1]

    @property
    def natural_clients(self) -> IntArray:
        """The collection of each training sample."""
        return self._parts[2]

    @cached_property
    def _parts(self) -> tuple[Samples, Samples, IntArray]:
        train, test, owners = [], [], []
        for number, path in enumerate(self._collections()):
            texts = _texts_of(path)
            windows = [_windows(text) for text in texts]
            own = [rows for k, rows in enumerate(windows) if k % _TEST_EVERY]
            train += own
            test += windows[::_TEST_EVERY]
            owners.append(np.full(sum(map(len, own)), number))
        rows, owner = np.concatenate(train), np.concatenate(owners)
        picks = _spread(len(rows), self._samples)
        tests = np.concatenate(test)
        tests = tests[_spread(len(tests), self._samples // 4)]
        return _samples_of(rows[picks]), _samples_of(tests), owner[picks]

    def _collections(self) -> list[Path]:
        """The files with texts in them, by name; their indices, and other encodings, end in .*."""
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        paths = [path for path in found if path.is_file() and not path.suffix]
        if not any(len(_windows(text)) for path in paths for text in _texts_of(path)):
            raise InvalidInput(
                f"no fortunes in {self._folder}: apt install fortunes, or name the folder of the "
                "collections with --data-dir (run-config: data-dir)"
            )
        return paths


def _texts_of(path: Path) -> list[str]:
    """The texts of a collection in lower case."""
    return read_bytes(path).decode("utf-8", "replace").lower().split("\n%\n")


def _windows(text: str) -> IntArray:
    """Characters as numbers, shape (n, window + 1); the last of each is to be foretold."""
    numbers = np.array([_NUMBERS.get(one, len(_NUMBERS)) for one in text], dtype=np.int64)
    if len(numbers) <= _WINDOW:
        return np.zeros((0, _WINDOW + 1), dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(numbers, _WINDOW + 1)[::_STRIDE]


def _spread(n: int, most: int) -> IntArray:
    """At most so many indices below n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _samples_of(rows: IntArray) -> Samples:
    numbers = torch.from_numpy(np.ascontiguousarray(rows))
    return Samples(numbers[:, :-1].contiguous(), numbers[:, -1].contiguous())
