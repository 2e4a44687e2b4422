"""How worn a machine is, from its vibration: each client is a machine of one of six kinds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset, random_split

target = ("mae", "min")
_SHARES = (0.35, 0.25, 0.2, 0.1, 0.06, 0.04)  # of the machines, by kind


def make_model() -> nn.Module:
    """Two hidden layers over four channels of 16 samples."""
    layers = (nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1))
    return nn.Sequential(*layers)


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[DataLoader, ...]:
    """What one machine has recorded; a quarter validates."""
    rng = np.random.default_rng(1000 + partition_id)
    kind = int(rng.choice(len(_SHARES), p=_SHARES))
    n = int(np.clip(rng.lognormal(4, 0.8), 16, 400))
    train, validation = random_split(_windows(partition_id, kind, n), [n - n // 4, n // 4])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(validation, 64)


def central_data(batch_size: int) -> DataLoader:
    """All kinds alike."""
    kinds = range(len(_SHARES))
    return DataLoader(ConcatDataset([_windows(10_000 + kind, kind, 150) for kind in kinds]), 256)


def train_step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
    """A step on the mean absolute error."""
    windows, life = batch
    optimizer.zero_grad()
    loss = nn.functional.l1_loss(model(windows), life)
    loss.backward()
    optimizer.step()
    return loss


def test(model: nn.Module, testloader: DataLoader) -> dict[str, float]:
    """The mean absolute error, of a whole life."""
    with torch.no_grad():
        errors = torch.cat([(model(windows) - life).abs() for windows, life in testloader])
    return {"mae": errors.mean().item()}


def _windows(seed: int, kind: int, n: int) -> TensorDataset:
    rng = np.random.default_rng(seed)
    life = rng.uniform(0, 1, n)
    turns = (0.3 + 0.2 * kind + np.arange(4) / 10)[None, :, None] * np.arange(16)
    height = ((0.3 + 1.2 * (1 - life)) * (1 + 0.15 * kind))[:, None, None]
    windows = height * np.sin(turns + rng.uniform(0, 6.28, (n, 1, 1)))
    windows += 0.25 * rng.normal(size=windows.shape)
    windows += (0.6 * (1 - life) ** 2)[:, None, None] * rng.normal(size=windows.shape)
    numbers = (windows.reshape(n, -1), life[:, None])
    return TensorDataset(*(torch.tensor(part, dtype=torch.float32) for part in numbers))
