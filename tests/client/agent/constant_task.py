"""A task whose model answers every sample with the same number: tells versions apart."""

from __future__ import annotations

import torch

from wattfed.client.tasks.noop import Noop
from wattfed.client.tasks.sampled import Samples


class Constant(torch.nn.Module):
    """Answers with its only parameter, whatever comes in."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([float(value)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sum(1, keepdim=True) * 0 + self.value


class ConstantTask(Noop):
    """Of samples of 2x2."""

    name = "constant"

    def model(self) -> torch.nn.Module:
        return Constant()

    def train_samples(self) -> Samples:
        return Samples(torch.zeros(20, 2, 2), torch.arange(20) % 10)

    test_samples = train_samples
