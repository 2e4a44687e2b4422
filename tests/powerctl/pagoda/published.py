"""The convention of Pagoda's published counts, by which they are checked.

It charges a bias addition for every convolution but none for a linear layer, broadcast operands in
full, both operands of an operation with a constant, and the second operand of every matrix product
once as if it was a weight, whatever the batch; what it does not know it leaves out.

References
----------
Pagoda (arXiv 2509.20189) and its counting code.
"""

from __future__ import annotations

from collections.abc import Mapping

from powerctl.pagoda.formulas import (
    AFFINE,
    Convention,
    average_pool,
    convolution,
    max_pool,
    product,
)
from powerctl.pagoda.operators import (
    Call,
    CallCost,
    Flop,
    Rule,
    Transfer,
    moved,
)


def _charged(flop: Flop, *inputs: int) -> Rule:
    """The rule that reads the tensors at these positions and writes the first result."""

    def rule(call: Call) -> CallCost:
        return CallCost(
            flop(call), tuple(moved(call.tensor(i)) for i in inputs), (moved(call.out),)
        )

    return rule


def _elementwise(flop: int, passes: int = 2) -> Rule:
    """FLOP per element of the result, and how often as many elements are read or written."""

    def rule(call: Call) -> CallCost:
        n_bytes = call.out.numel() * call.out.element_size()
        reads = Transfer((passes - 1) * n_bytes)
        return CallCost(flop * call.out.numel(), (reads,), (Transfer(n_bytes),))

    return rule


def _batched_product(call: Call) -> CallCost:
    """The second operand is charged once, as a weight, although the batch multiplies it."""
    left, right = call.tensor(0), call.tensor(1)
    once = right.shape[-2:].numel() * right.element_size()
    return CallCost(product(0)(call), (moved(left), Transfer(once, None, True)), (moved(call.out),))


def _global_pool(call: Call) -> CallCost:
    """A mean over all pixels is GlobalAveragePool; other means are left out."""
    x = call.tensor(0)
    if x.dim() != 4 or call.out.numel() != x.shape[:2].numel():
        return CallCost()
    return CallCost(x.numel(), (moved(x),), (moved(call.out),))


def _flatten(call: Call) -> CallCost:
    """A view that keeps the batch and joins all the rest is Flatten; other views cost nothing."""
    x, out = call.tensor(0), call.out
    flattens = x.dim() > 2 and out.dim() == 2 and out.shape[0] == x.shape[0]
    return _MOVED(call) if flattens else CallCost()


def _normalised(call: Call) -> CallCost:
    x = call.tensor(0)
    parameters = Transfer(AFFINE * x.shape[1] * x.element_size(), None, True)
    return CallCost(AFFINE * x.numel(), (moved(x), parameters), (moved(call.out),))


_MOVED = _elementwise(0)


def _with_bias(call: Call) -> int:
    return convolution(call) + call.out.numel()


_PUBLISHED: Mapping[str, Rule] = {
    "convolution": _charged(_with_bias, 0, 1),
    "addmm": _charged(product(1), 1, 2),
    "mm": _charged(product(0), 0, 1),
    "bmm": _batched_product,
    "relu": _elementwise(1),
    "sigmoid": _elementwise(4),
    "hardsigmoid": _elementwise(4),
    "tanh": _elementwise(5),
    "hardswish": _elementwise(5),
    "silu": _elementwise(5),
    "_softmax": _elementwise(7),
    "erf": _elementwise(8),
    "gelu": _elementwise(12, passes=14),  # exported as Div, Erf, Add, Mul, Mul
    **dict.fromkeys(("add", "sub", "mul", "div"), _elementwise(1, passes=3)),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        _normalised,
    ),
    "max_pool2d_with_indices": _charged(max_pool, 0),
    "avg_pool2d": _charged(average_pool, 0),
    **dict.fromkeys(("mean", "_adaptive_avg_pool2d"), _global_pool),
    **dict.fromkeys(("transpose", "permute", "cat"), _MOVED),
    "view": _flatten,
}


PUBLISHED = Convention(
    {f"aten::{name}": rule for name, rule in _PUBLISHED.items()},
    otherwise=lambda call: CallCost(),
)
