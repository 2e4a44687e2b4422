"""Stochastic gradient descent for tasks of our own, which leaves torch's compiler unloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class MomentumSGD(Optimizer):
    """What ``torch.optim.SGD`` with momentum computes, bit for bit, without its imports.

    Making or using any of torch's own optimizers imports `torch._dynamo`: a second of processor
    time and some 60 MB in each process that trains.

    Parameters
    ----------
    parameters : iterable of Tensor
        What is learned; gradients must be dense.
    lr : float
        Learning rate.
    momentum : float
        Share of the last update that is kept.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters to learn."""
        undecorated: Any = Optimizer.add_param_group
        undecorated.__wrapped__(self, param_group)  # the decorator is what imports

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the last step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            going = [p for p in moved if p in self.state]
            if going:
                updates = [self.state[p]["update"] for p in going]
                torch._foreach_mul_(updates, group["momentum"])
                torch._foreach_add_(updates, [p.grad for p in going])
            for parameter in moved:
                if parameter not in self.state:
                    self.state[parameter]["update"] = parameter.grad.clone()
            if moved:
                updates = [self.state[p]["update"] for p in moved]
                torch._foreach_add_(moved, updates, alpha=-group["lr"])
        return loss
