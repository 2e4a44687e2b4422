"""Counting FLOP and DRAM bytes of any PyTorch model by running it without computing.

The model runs on fake tensors, which have shapes and types but no data, and every operator that
the dispatcher sees is charged: in the forward pass, in the backward pass and in the optimiser's
step. So nothing has to be known of the model, and what it does twice is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from powerctl.errors import InvalidInput
from powerctl.pagoda.counts import Counts
from powerctl.pagoda.formulas import DRAM, Convention
from powerctl.pagoda.operator_counter import (
    MODEL,
    OPTIMISER,
    AsOnGpu,
    OperatorCounter,
    plain_kernels,
)

Optimiser: TypeAlias = Literal["sgd", "sgd-momentum", "adam"]

_OPTIMISERS: Mapping[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
}


class NeedsData(InvalidInput):
    """What a model does depends on its data, so it cannot be counted without."""


def count_model(
    model: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    training: bool = False,
    loss: Callable[[Any], Tensor] | None = None,
    optimiser: Optimiser | None = None,
    convention: Convention = DRAM,
    compute: bool = False,
) -> Counts:
    """What one minibatch of a model needs.

    Parameters
    ----------
    model : nn.Module
        On any device, also on ``meta``; it is left as it was.
    inputs : Tensor or sequence of Tensor
        Arguments of the model, likewise; the first dimension of the first is the batch.
    training : bool
        Count the backward pass too. The model is in training mode then, and in evaluation mode
        otherwise.
    loss : callable, optional
        From the model's output to what training makes small, which is counted as well; by default
        the sum of all outputs, for nothing.
    optimiser : {"sgd", "sgd-momentum", "adam"}, optional
        Count this optimiser's step too (not its first, which makes its state).
    convention : Convention
        What operators cost.
    compute : bool
        Really compute, on the model's device, for models whose control flow depends on their data.

    Raises
    ------
    NeedsData
        If the model cannot run without data.
    InvalidInput
        If it cannot run on these inputs, if there is nothing to train, or the options contradict
        each other; the message says what to change.
    """
    if optimiser is not None and not training:
        raise InvalidInput(f"optimiser {optimiser!r} takes part in training only: training=True")
    if optimiser is not None and optimiser not in _OPTIMISERS:
        known = ", ".join(_OPTIMISERS)
        raise InvalidInput(f"optimiser is one of {known}, or None, not {optimiser!r}")
    arguments = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    copied: Callable[[Tensor], Tensor] = _copy if compute else _stand_in

    with ExitStack() as stack:
        if not compute:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_mode_of(model, training))
        stack.enter_context(plain_kernels())
        stack.enter_context(torch.set_grad_enabled(training))
        parameters = {
            name: nn.Parameter(copied(p), requires_grad=p.requires_grad)
            for name, p in model.named_parameters()
        }
        buffers = {name: copied(b) for name, b in model.named_buffers()}
        counter = OperatorCounter(convention, [*parameters.values(), *buffers.values()])
        arguments = tuple(copied(argument) for argument in arguments)
        try:
            _run(model, {**parameters, **buffers}, arguments, counter, training, loss)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise NeedsData(
                f"{type(model).__name__} needs data to run ({error}): count it with compute=True"
            ) from error
        if optimiser is not None:
            _step(optimiser, list(parameters.values()), counter)

    kinds = {name or MODEL: type(module).__name__ for name, module in model.named_modules()}
    kinds[OPTIMISER] = optimiser or ""
    return counter.counts(kinds, batch_size=arguments[0].shape[0] if arguments else 1)


def _run(
    model: nn.Module,
    weights: dict[str, Tensor],
    arguments: tuple[Tensor, ...],
    counter: OperatorCounter,
    training: bool,
    loss: Callable[[Any], Tensor] | None,
) -> None:
    """Forward and backward under the counter."""
    with counter, counter.layers.of(model), AsOnGpu():
        try:
            output = functional_call(model, weights, arguments)
            if training and loss is not None:
                output = loss(output)
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
            if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
                raise
            shapes = ", ".join(str(tuple(argument.shape)) for argument in arguments)
            raise InvalidInput(
                f"{type(model).__name__} does not run on inputs of shape {shapes}: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
    if not training:
        return
    losses = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    if not losses:
        raise InvalidInput(
            f"nothing to train in {type(model).__name__}: no output depends on a parameter that "
            "requires a gradient"
        )
    gradients = [torch.ones_like(loss) for loss in losses]
    with counter, counter.layers.of(model):
        torch.autograd.backward(losses, gradients)


def _step(name: str, parameters: list[Tensor], counter: OperatorCounter) -> None:
    """The optimiser's second step under the counter: the first only makes its state."""
    optimiser = _OPTIMISERS[name](parameters)
    optimiser.step()
    counter.layers.outside = OPTIMISER
    with counter:
        optimiser.step()


@contextmanager
def _mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode, and back to what each module was in."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, was in before.items():
            module.training = was


def _stand_in(tensor: Tensor) -> Tensor:
    """A tensor like it, on the CPU; a fake one under the mode of fake tensors."""
    detached = tensor.detach()
    return torch.empty_strided(
        detached.size(), detached.stride(), dtype=detached.dtype, device="cpu"
    )


def _copy(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        raise InvalidInput("a model or input on the meta device has no data to compute with")
    return tensor.detach().clone()
