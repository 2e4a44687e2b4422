"""The next letter of a text, by a GRU: each client has part of one of Debian's `fortunes` files."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset, random_split

target = ("bits", "min")
_FOLDER = Path("/usr/share/games/fortunes")
_LETTERS = "abcdefghijklmnopqrstuvwxyz .,'\"\n-?!0123456789:;()"
_LENGTH = 24


class Net(nn.Module):
    """A GRU over embedded letters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 16)
        self.gru = nn.GRU(16, 48, batch_first=True)
        self.out = nn.Linear(48, 64)

    def forward(self, letters: Tensor) -> Tensor:
        """The scores of each next letter."""
        scores: Tensor = self.out(self.gru(self.embedding(letters))[0])
        return scores


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[DataLoader, ...]:
    """Some lines of one file; a quarter validates."""
    generator = torch.Generator().manual_seed(partition_id)
    texts = _texts()
    lines = texts[partition_id % len(texts)]
    order = torch.randperm(len(lines), generator=generator)
    own = lines[order[: 40 + int(torch.randint(0, 160, (1,), generator=generator))]]
    n = len(own) // 4
    train, validation = random_split(TensorDataset(own), [len(own) - n, n])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(validation, 64)


def central_data(batch_size: int) -> DataLoader:
    """Forty lines of each file."""
    generator = torch.Generator().manual_seed(99)
    lines = [text[torch.randperm(len(text), generator=generator)[:40]] for text in _texts()]
    return DataLoader(TensorDataset(torch.cat(lines)), 256)


def make_optimizer(model: nn.Module, lr: float) -> SGD:
    """SGD with momentum, at a rate as recurrent networks need it."""
    return SGD(model.parameters(), lr=10 * lr, momentum=0.9)


def train_step(model: nn.Module, batch: tuple[Tensor], optimizer: Optimizer) -> Tensor:
    """A step on the cross-entropy of all letters."""
    optimizer.zero_grad()
    loss = _loss(model, batch[0])
    loss.backward()
    optimizer.step()
    return loss


def test(model: nn.Module, testloader: DataLoader) -> dict[str, float]:
    """The bits that a letter takes."""
    with torch.no_grad():
        sums = [(len(lines), float(_loss(model, lines))) for (lines,) in testloader]
    return {"bits": sum(n * loss for n, loss in sums) / sum(n for n, _ in sums) / math.log(2)}


def _loss(model: nn.Module, lines: Tensor) -> Tensor:
    scores = model(lines[:, :-1]).flatten(0, 1)
    return nn.functional.cross_entropy(scores, lines[:, 1:].flatten())


@cache
def _texts() -> list[Tensor]:
    if not _FOLDER.is_dir():
        raise SystemExit("this task needs Debian's package fortunes: apt-get install fortunes")
    code = {letter: 1 + i for i, letter in enumerate(_LETTERS)}
    files = sorted(path for path in _FOLDER.iterdir() if path.is_file() and not path.suffix)
    texts = []
    for path in files:
        text = path.read_text(errors="ignore").lower()
        codes = torch.tensor([code.get(letter, 0) for letter in text])
        n = len(codes) // (_LENGTH + 1)
        texts.append(codes[: n * (_LENGTH + 1)].view(n, -1))
    return texts
