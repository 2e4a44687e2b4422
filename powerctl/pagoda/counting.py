"""Counting FLOP and DRAM bytes of any PyTorch model by running it without computing.

The model runs on fake tensors, which have shapes and types but no data, and every operator that
the dispatcher sees is charged: in the forward pass, in the backward pass and in the optimiser's
step. So nothing has to be known of the model, and what it does twice is counted twice.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from powerctl.errors import InvalidInput
from powerctl.pagoda.counts import Counts, LayerCount, OperatorCount, UnknownOperator
from powerctl.pagoda.formulas import DRAM, Convention
from powerctl.pagoda.operators import Call, Transfer

Optimiser: TypeAlias = Literal["sgd", "sgd-momentum", "adam"]

MODEL = "(model)"
OPTIMISER = "(optimiser)"
_OPTIMISERS: Mapping[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
}
_NOT_KERNELS = {"prim", "profiler"}  # name spaces of bookkeeping


@dataclass(frozen=True)
class _Launch:
    """One operator that ran: its name, the module that called it, and what it was charged."""

    operator: str
    layer: str
    flop: int
    weight_bytes: int
    dram_bytes: int
    known: bool


class NeedsData(InvalidInput):
    """What a model does depends on its data, so it cannot be counted without."""


def count_model(
    model: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    training: bool = False,
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
        Count the backward pass of the sum of all outputs too. The model is in training mode then,
        and in evaluation mode otherwise.
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
        stack.enter_context(_plain_kernels())
        stack.enter_context(torch.set_grad_enabled(training))
        parameters = {
            name: nn.Parameter(copied(p), requires_grad=p.requires_grad)
            for name, p in model.named_parameters()
        }
        buffers = {name: copied(b) for name, b in model.named_buffers()}
        counter = _Counter(convention, [*parameters.values(), *buffers.values()])
        arguments = tuple(copied(argument) for argument in arguments)
        try:
            _run(model, {**parameters, **buffers}, arguments, counter, training)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise NeedsData(
                f"{type(model).__name__} needs data to run ({error}): count it with compute=True"
            ) from error
        if optimiser is not None:
            _step(optimiser, list(parameters.values()), counter)

    kinds = {name or MODEL: type(module).__name__ for name, module in model.named_modules()}
    kinds[OPTIMISER] = optimiser or ""
    return _summary(counter.launches, kinds, batch_size=arguments[0].shape[0] if arguments else 1)


def _run(
    model: nn.Module,
    weights: dict[str, Tensor],
    arguments: tuple[Tensor, ...],
    counter: _Counter,
    training: bool,
) -> None:
    """Forward and backward under the counter."""
    with counter, counter.layers.of(model), _AsOnGpu():
        try:
            output = functional_call(model, weights, arguments)
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


def _step(name: str, parameters: list[Tensor], counter: _Counter) -> None:
    """The optimiser's second step under the counter: the first only makes its state."""
    optimiser = _OPTIMISERS[name](parameters)
    optimiser.step()
    counter.layers.outside = OPTIMISER
    with counter:
        optimiser.step()


def _summary(launches: Sequence[_Launch], kinds: Mapping[str, str], batch_size: int) -> Counts:
    total = sum(launch.dram_bytes for launch in launches)
    layers = [
        LayerCount(name, kinds.get(name, ""), *_sums(own))
        for name, own in _grouped(launches, "layer").items()
    ]
    operators = [
        OperatorCount(name, *_sums(own)) for name, own in _grouped(launches, "operator").items()
    ]
    strange = _grouped([launch for launch in launches if not launch.known], "operator")
    unknown = [
        UnknownOperator(
            name, len(own), sum(launch.dram_bytes for launch in own) / total if total else 0.0
        )
        for name, own in strange.items()
    ]
    flop, dram_bytes, kernels = _sums(launches)
    return Counts(
        flop=flop,
        dram_bytes=dram_bytes,
        weight_bytes=sum(launch.weight_bytes for launch in launches),
        kernels=kernels,
        batch_size=batch_size,
        layers=tuple(layers),
        operators=tuple(sorted(operators, key=lambda o: -o.dram_bytes)),
        unknown=tuple(sorted(unknown, key=lambda u: -u.bytes_share)),
    )


def _sums(launches: Sequence[_Launch]) -> tuple[int, int, int]:
    return (
        sum(launch.flop for launch in launches),
        sum(launch.dram_bytes for launch in launches),
        len(launches),
    )


def _grouped(launches: Sequence[_Launch], by: str) -> dict[str, list[_Launch]]:
    groups: dict[str, list[_Launch]] = {}
    for launch in launches:
        groups.setdefault(getattr(launch, by), []).append(launch)
    return groups


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what runs under it, operator by operator."""

    def __init__(self, convention: Convention, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: list[_Launch] = []
        self.layers = _Layers()
        self._convention = convention
        self._memory: dict[int, StorageWeakRef] = {}  # held, so that no number comes twice
        self._weights = {self._number(weight) for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace not in _NOT_KERNELS:
            self._charge(Call(func, args, kwargs, result))
        return result

    def _charge(self, call: Call) -> None:
        cost = self._convention.cost(call)
        known = self._convention.knows(call)
        if known and not cost.reads and not cost.writes:
            return
        self.launches.append(
            _Launch(
                operator=call.name,
                layer=self.layers.current(),
                flop=cost.flop,
                weight_bytes=sum(t.n_bytes for t in cost.reads if self._is_weight(t)),
                dram_bytes=sum(t.n_bytes for t in (*cost.reads, *cost.writes)),
                known=known,
            )
        )

    def _is_weight(self, transfer: Transfer) -> bool:
        held = transfer.tensor is not None and self._number(transfer.tensor) in self._weights
        return held or transfer.is_weight

    def _number(self, tensor: Tensor) -> int:
        """The number of the memory that a tensor is in."""
        if tensor.layout != torch.strided:
            return id(tensor)
        held = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self._memory.setdefault(held.cdata, held)
        return int(held.cdata)


class _Layers:
    """Which module an operator belongs to, in the backward pass too.

    The nodes of the autograd graph are numbered as they are made, so a node of the backward pass
    belongs to the module that was running when its number was given.
    """

    def __init__(self) -> None:
        self.outside = MODEL  # where no module runs
        self._running: list[str] = []
        self._starts: list[int] = []  # from this node on ...
        self._names: list[str] = []  # ... this module ran

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Follow the modules of a model as they run."""
        names = {module: name or MODEL for name, module in model.named_modules()}

        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(names.get(module, self._running[-1] if self._running else MODEL))
            self._note()

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._running.pop()
            self._note()

        handles = (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def current(self) -> str:
        """The module that is running, or whose gradient is."""
        if self._running:
            return self._running[-1]
        if torch._C._current_graph_task_id() == -1:  # not in a backward pass
            return self.outside
        node = torch._C._current_autograd_node()
        index = bisect_right(self._starts, node._sequence_nr()) - 1 if node is not None else -1
        return self._names[index] if index >= 0 else MODEL

    def _note(self) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
        self._names.append(self._running[-1] if self._running else self.outside)


class _AsOnGpu(TorchFunctionMode):
    """Dropout as the one kernel that it is on a GPU, in attention a part of the fused kernel."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention and len(args) < 5:
            kwargs = {**kwargs, "dropout_p": 0.0}
        if func is functional.multi_head_attention_forward and not kwargs.get("need_weights", True):
            args = (*args[:10], 0.0, *args[11:])
        return func(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


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


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """No kernels that only a CPU has, or only inference: counts are the same everywhere."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of TF32, which is not asked for
        onednn = torch.backends.mkldnn.flags(enabled=False)
        onednn.__enter__()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            onednn.__exit__(None, None, None)


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
