"""Loss and accuracy of a model on samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from wattfed.client.tasks.task import Samples


class Evaluation(NamedTuple):
    """Mean cross-entropy, and the share of samples classified rightly."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(model: nn.Module, samples: Samples, batch_size: int = 512) -> Evaluation:
    """Evaluate a classifier."""
    model.eval()
    loss = correct = 0.0
    for picks in torch.arange(len(samples)).split(batch_size):
        batch = samples.take(picks)
        logits = model(batch.inputs)
        loss += nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == batch.labels).sum().item()
    return Evaluation(loss / len(samples), correct / len(samples))
