"""A rare fault found in measurements: most clients have hardly seen one, and some see it often."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

target = ("f1", "max")
_FEATURES = 20


def make_model() -> nn.Module:
    """One hidden layer, with dropout."""
    layers = (nn.Linear(_FEATURES, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 2))
    return nn.Sequential(*layers)


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[DataLoader, ...]:
    """One client's measurements; a quarter validates."""
    rng = np.random.default_rng(partition_id)
    n, rate = int(rng.integers(40, 300)), float(rng.beta(0.25, 2.2))
    train, validation = random_split(_measured(100 + partition_id, n, rate), [n - n // 4, n // 4])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(validation, 64)


def central_data(batch_size: int) -> DataLoader:
    """A tenth of them faulty."""
    return DataLoader(_measured(3, 2000, 0.1), 500)


def train(
    net: nn.Module, trainloader: DataLoader, epochs: int, lr: float, device: torch.device
) -> None:
    """A whole loop, as Flower's quickstart has it."""
    net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        for numbers, faulty in trainloader:
            optimizer.zero_grad()
            scores = net(numbers.to(device))
            nn.functional.cross_entropy(scores, faulty.to(device)).backward()
            optimizer.step()


def test(net: nn.Module, testloader: DataLoader, device: torch.device) -> dict[str, float]:
    """The harmonic mean of precision and recall."""
    net.eval()
    with torch.no_grad():
        pairs = [(net(x.to(device)).argmax(1).cpu(), y) for x, y in testloader]
    found, faulty = (torch.cat(part) for part in zip(*pairs, strict=True))
    both = int((found & faulty).sum())
    return {"f1": 2 * both / max(1, int(found.sum() + faulty.sum()))}


def _measured(seed: int, n: int, rate: float) -> TensorDataset:
    rng = np.random.default_rng(seed)
    faulty = (rng.uniform(size=n) < rate).astype(np.int64)
    kinds = np.random.default_rng(5).normal(scale=0.9, size=(3, _FEATURES))
    numbers = rng.normal(size=(n, _FEATURES)) + faulty[:, None] * kinds[rng.integers(3, size=n)]
    return TensorDataset(torch.tensor(numbers, dtype=torch.float32), torch.tensor(faulty))
