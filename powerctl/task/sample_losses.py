"""How much the samples of a minibatch differ in loss, seen from the loss that the user computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# what leaves the samples' losses as they are: a mean over them, factors, other precisions
_PASSING = {"MeanBackward0", "MulBackward0", "DivBackward0", "ToCopyBackward0", "ViewBackward0"}


def mean_square(loss: Tensor) -> Tensor:
    """The mean of the samples' squared losses, from the graph of their mean.

    The graph keeps what common losses were computed from: cross-entropy (each position of a text
    or an image is a sample), squared errors and binary cross-entropy. Of others it is the square
    of the mean, which is never greater.

    Parameters
    ----------
    loss : Tensor, shape ()
        Before its graph is let go by a backward pass.

    Returns
    -------
    Tensor, shape ()
    """
    node = loss.grad_fn
    with torch.no_grad():
        try:
            while node is not None and (kind := type(node).__name__) not in _LOSSES:
                before = [one for one, _ in node.next_functions if one is not None]
                node = before[0] if kind in _PASSING and len(before) == 1 else None
            square = None if node is None else _LOSSES[kind](node)
        except (AttributeError, RuntimeError):  # another torch keeps other things, or they are gone
            square = None
        return loss.detach().float().square() if square is None else square


def _cross_entropy(node: Any) -> Tensor | None:
    if node._saved_weight is not None:
        return None
    logs, target = node._saved_self, node._saved_target
    ignored = node._saved_ignore_index
    if ignored >= 1 << 63:  # told without its sign
        ignored -= 1 << 64
    rows = F.nll_loss(logs, target, ignore_index=ignored, reduction="none").flatten()
    counted = node._saved_total_weight if node._saved_reduction else len(rows)
    return torch.dot(rows, rows) / counted


def _squared_error(node: Any) -> Tensor:
    return _over_samples(F.mse_loss(node._saved_self, node._saved_target, reduction="none"))


def _binary_cross_entropy(node: Any) -> Tensor:
    return _over_samples(
        F.binary_cross_entropy_with_logits(
            node._saved_self,
            node._saved_target,
            node._saved_weight,
            reduction="none",
            pos_weight=node._saved_pos_weight,
        )
    )


def _over_samples(losses: Tensor) -> Tensor:
    """The mean square of the samples' means; the first dimension is the sample."""
    return losses.flatten(1).mean(1).square().mean() if losses.dim() > 1 else losses.square().mean()


_LOSSES: dict[str, Callable[[Any], Tensor | None]] = {
    "NllLossBackward0": _cross_entropy,
    "NllLoss2DBackward0": _cross_entropy,
    "MseLossBackward0": _squared_error,
    "BinaryCrossEntropyWithLogitsBackward0": _binary_cross_entropy,
}
