"""What is done around a user's training: watched, pulled by FedProx, computed in bfloat16."""

from __future__ import annotations

import math
import threading
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._pytree import tree_map

from powerctl.task.sample_losses import mean_square


class Watch:
    """Sees the losses of a user's backward passes while their code runs, in a `with`.

    A loss that a `GradScaler` has scaled is seen as it was before. One that the user divides, to
    accumulate gradients, is seen divided.

    Parameters
    ----------
    looks : bool
        Whether anybody wants to know them.
    """

    def __init__(self, *, looks: bool = True) -> None:
        self._looks = looks
        self._thread = threading.get_ident()
        self._losses: list[tuple[Tensor, Tensor]] = []
        self._scaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._backward: Any = None
        self._scale: Any = None

    def __enter__(self) -> Watch:
        self._backward, self._scale = torch.autograd.backward, torch.amp.GradScaler.scale
        backward, scale = self._backward, self._scale

        def seen(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            self._see(tensors)
            return backward(tensors, *args, **kwargs)

        def scaling(scaler: Any, outputs: Any) -> Any:
            scaled = scale(scaler, outputs)
            if isinstance(outputs, Tensor):
                self._scaled[id(scaled)] = scaled, outputs  # held, so that ids stay unique
            return scaled

        torch.autograd.backward = seen
        torch.amp.GradScaler.scale = scaling  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *exception: object) -> None:
        torch.autograd.backward = self._backward
        torch.amp.GradScaler.scale = self._scale  # type: ignore[method-assign]

    def here(self) -> None:
        """Take this thread for the one that trains; losses in others are not seen."""
        self._thread = threading.get_ident()

    def taken(self) -> tuple[float, float]:
        """The mean of the losses seen since it was last taken, and of the samples' squares.

        NaN for none; of squares see `powerctl.task.sample_losses`.
        """
        if not self._losses:
            return math.nan, math.nan
        losses = [float(loss) for loss, _ in self._losses]
        squares = [float(square) for _, square in self._losses]
        self._losses.clear()
        self._scaled.clear()
        return sum(losses) / len(losses), sum(squares) / len(squares)

    def _see(self, tensors: Any) -> None:
        if not self._looks or threading.get_ident() != self._thread:
            return
        for tensor in (tensors,) if isinstance(tensors, Tensor) else tuple(tensors):
            if isinstance(tensor, Tensor) and tensor.numel() == 1:
                _, loss = self._scaled.get(id(tensor), (tensor, tensor))
                self._losses.append((loss.detach(), mean_square(loss)))


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that normalise over a minibatch and keep running statistics."""
    kinds = (nn.modules.batchnorm._BatchNorm,)
    return [m for m in model.modules() if isinstance(m, kinds) and m.track_running_stats]


class SingleSamples:
    """Lets layers take their running statistics for a minibatch with one value of each channel.

    It has no variance, so that torch raises: the last minibatch of an epoch may be of one sample.

    Parameters
    ----------
    layers : list of nn.Module
        See `batch_norms`.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._handles: list[Any] = []
        self._single: set[nn.Module] = set()

    def __enter__(self) -> SingleSamples:
        for layer in self._layers:
            self._handles.append(layer.register_forward_pre_hook(self._before))
            self._handles.append(layer.register_forward_hook(self._after))
        return self

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        given = inputs[0]
        if layer.training and given.dim() > 1 and given.numel() == given.shape[1]:
            self._single.add(layer.eval())

    def _after(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if layer in self._single:
            self._single.remove(layer.train())


class LowPrecision:
    """Runs a model's forward pass in bfloat16, where torch's autocast finds that safe, in a `with`.

    What it returns is float32 again, so that losses, gradients of weights and the optimizer are as
    ever. As bfloat16 reaches as far as float32, nothing is to be scaled.

    Parameters
    ----------
    model : nn.Module
        What the user's code calls.
    kind : str
        Of its device, as torch names it.
    """

    def __init__(self, model: nn.Module, kind: str) -> None:
        self.is_used = False
        self._model = model
        self._kind = kind
        self._handles: list[Any] = []
        self._open: list[ExitStack] = []

    def __enter__(self) -> LowPrecision:
        model = self._model
        self._handles.append(model.register_forward_pre_hook(self._before))
        self._handles.append(model.register_forward_hook(self._after, always_call=True))
        return self

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _before(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.is_used = True
        self._open.append(ExitStack())
        self._open[-1].enter_context(torch.autocast(self._kind, torch.bfloat16))

    def _after(self, model: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        self._open.pop().close()
        return tree_map(_as_float32, output)


def _as_float32(value: Any) -> Any:
    is_low = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_low else value


class Proximal:
    """FedProx's pull to the global model, mu / 2 |w - w_global|^2, in every step of an optimizer.

    Its gradient is added right before an optimizer's step, so that the user's loss is as they
    wrote it; where an optimizer computes gradients in a closure, after each of these.

    Parameters
    ----------
    model : nn.Module
        As it came from the server.
    mu : float
        Of the pull.
    """

    def __init__(self, model: nn.Module, mu: float) -> None:
        self._steps = 0
        self._mu = mu
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._global = {id(p): p.detach().clone() for p in self._parameters}
        self._handle: Any = None

    def __enter__(self) -> Proximal:
        self._handle = register_optimizer_step_pre_hook(self._before_step)
        return self

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()

    def is_evaded(self) -> bool:
        """Whether the model has changed without a step of an optimizer of torch."""
        return not self._steps and any(
            not torch.equal(p.detach().cpu(), self._global[id(p)].cpu()) for p in self._parameters
        )

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        closure = kwargs.get("closure") or next(filter(callable, args[1:]), None)
        if closure is None:
            self._pull(optimizer)
            return None

        def pulled() -> Any:
            loss = closure()
            self._pull(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": pulled}

    @torch.no_grad()
    def _pull(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)  # of fused ones, which unscale by themselves
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            origin = self._global.get(id(parameter))
            if origin is not None and parameter.grad is not None:
                pull = (parameter - origin.to(parameter.device)) * self._mu
                parameter.grad.add_(pull if scale is None else pull * scale)
                self._steps += 1


class SlowerSteps:
    """A factor on the learning rate in every step of an optimizer, in a `with`.

    Between steps the rate is the user's own, so that schedulers and logs see that.

    Parameters
    ----------
    rate : float
        The factor.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._own: list[Any] = []
        self._handles: list[Any] = []

    def __enter__(self) -> SlowerSteps:
        self._handles = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._own = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self._rate

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, own in zip(optimizer.param_groups, self._own, strict=True):
            group["lr"] = own
