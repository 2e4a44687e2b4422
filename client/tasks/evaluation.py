"""The metrics of a classifier on samples."""

from __future__ import annotations

import torch
from torch import nn

from wattfed.client.tasks.task import Samples


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, batch_size: int = 512) -> dict[str, float]:
    """The share of samples that a classifier gets right (accuracy), and its mean cross-entropy."""
    model.eval()
    loss = correct = 0.0
    for picks in torch.arange(len(samples)).split(batch_size):
        batch = samples.take(picks)
        logits = model(batch.inputs)
        loss += nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == batch.labels).sum().item()
    return {"accuracy": correct / len(samples), "loss": loss / len(samples)}
