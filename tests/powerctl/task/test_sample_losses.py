from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from powerctl.task.sample_losses import mean_square

ROWS = torch.randn(16, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
CLASSES = torch.arange(16) % 10
IGNORED = CLASSES.where(torch.arange(16) % 3 > 0, -100)
IMAGES = ROWS.reshape(2, 5, 4, 4)
TARGETS = torch.linspace(0, 1, 160).reshape(16, 10)


def entropy(reduction, rows=ROWS, classes=CLASSES, **how):
    return F.cross_entropy(rows, classes, reduction=reduction, **how)


@pytest.mark.parametrize(
    ("loss", "samples"),
    [
        (entropy("mean"), entropy("none")),
        (entropy("mean") / 4, entropy("none")),  # gradients are accumulated
        (entropy("mean").double(), entropy("none")),
        (entropy("none").mean(), entropy("none")),
        (entropy("sum"), entropy("none")),
        (entropy("mean", classes=IGNORED), entropy("none")[IGNORED >= 0]),
        (
            entropy("mean", IMAGES, torch.ones(2, 4, 4).long()),
            entropy("none", IMAGES, torch.ones(2, 4, 4).long()),
        ),
        (F.mse_loss(ROWS, TARGETS), F.mse_loss(ROWS, TARGETS, reduction="none").mean(1)),
        (
            F.binary_cross_entropy_with_logits(ROWS, TARGETS),
            F.binary_cross_entropy_with_logits(ROWS, TARGETS, reduction="none").mean(1),
        ),
    ],
)
def test_the_samples_losses_are_found_in_the_graph_of_their_mean(loss, samples):
    square = mean_square(loss)
    torch.testing.assert_close(square, samples.detach().square().mean())
    assert not square.requires_grad
    loss.backward(retain_graph=True)  # nothing was let go


@pytest.mark.parametrize(
    "loss",
    [
        entropy("mean", label_smoothing=0.1),
        entropy("mean", weight=torch.linspace(1, 2, 10)),
        entropy("mean") + F.mse_loss(ROWS, TARGETS),
        torch.tensor(-3.0),
        ROWS.cos().mean(),
    ],
)
def test_of_other_losses_it_is_the_square_of_the_mean(loss):
    torch.testing.assert_close(mean_square(loss), loss.detach().square())


def test_of_a_graph_that_is_gone_it_is_the_square_of_the_mean():
    loss = F.cross_entropy(ROWS * 2, CLASSES)
    loss.backward()
    torch.testing.assert_close(mean_square(loss), loss.detach().square())
