"""Noise taken off pictures of clothes: each client has mostly one garment, and its own noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset, random_split

from powerctl.modes import IntArray
from wattfed.client.tasks.fashion_mnist import FashionMnist

target = ("psnr", "max")


def make_model() -> nn.Module:
    """Three convolutions, one with batch normalisation."""
    first, then, last = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 12), (12, 12), (12, 1)))
    return nn.Sequential(first, nn.BatchNorm2d(12), nn.ReLU(), then, nn.ReLU(), last)


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[DataLoader, ...]:
    """Four fifths of one garment; a fifth validates."""
    rng, labels = np.random.default_rng(partition_id), _clothes()[1]
    garment, n = int(rng.integers(10)), int(rng.integers(30, 120))
    own = rng.choice(np.flatnonzero(labels == garment), n * 4 // 5, replace=False)
    rest = rng.choice(len(labels), n - len(own), replace=False)
    pictures = _noisy(np.concatenate([own, rest]), "own", partition_id, rng.uniform(0.1, 0.5))
    train, validation = random_split(pictures, [n - n // 5, n // 5])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(validation, 64)


def central_data(batch_size: int) -> DataLoader:
    """Test pictures with a middling noise."""
    return DataLoader(_noisy(np.arange(400), "test", 1, 0.3), 200)


def make_optimizer(model: nn.Module, lr: float) -> Adam:
    """Adam, at a rate as it needs it."""
    return Adam(model.parameters(), lr=lr / 5)


def train_step(model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: Optimizer) -> Tensor:
    """A step on the mean squared error."""
    noisy, clean = batch
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(noisy), clean)
    loss.backward()
    optimizer.step()
    return loss


def test(model: nn.Module, testloader: DataLoader) -> dict[str, float]:
    """The peak signal-to-noise ratio, in decibels."""
    with torch.no_grad():
        errors = [((model(noisy) - clean) ** 2).flatten() for noisy, clean in testloader]
    return {"psnr": -10 * torch.log10(torch.cat(errors).mean()).item()}


@cache
def _clothes() -> tuple[dict[str, Tensor], IntArray]:
    task = FashionMnist(samples=7000, tests=400)
    train, test = task.train_samples(), task.test_samples()
    halved = {"own": train.inputs[:, :, ::2, ::2], "test": test.inputs[:, :, ::2, ::2]}
    return halved, train.labels.numpy()


def _noisy(rows: IntArray, part: str, seed: int, scale: float) -> TensorDataset:
    clean = _clothes()[0][part][torch.from_numpy(rows)]
    noise = np.random.default_rng(seed).normal(scale=scale, size=clean.shape)
    return TensorDataset(clean + torch.tensor(noise, dtype=torch.float32), clean)
