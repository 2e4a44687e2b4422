"""What is charged while PyTorch code runs: every operator that the dispatcher sees, by module.

The code may compute, or run on fake tensors, which have shapes and types but no data.
"""

from __future__ import annotations

import threading
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from powerctl.pagoda.counts import Counts, LayerCount, OperatorCount, UnknownOperator
from powerctl.pagoda.formulas import Convention
from powerctl.pagoda.operators import Call, Transfer

MODEL = "(model)"
OPTIMISER = "(optimiser)"
_NOT_KERNELS = {"prim", "profiler"}  # name spaces of bookkeeping
_NUMBER_OF = torch.ops.aten._local_scalar_dense.default  # of a tensor of one element


@dataclass(frozen=True)
class _Launch:
    """One operator that ran: its name, the module that called it, and what it was charged."""

    operator: str
    layer: str
    flop: int
    weight_bytes: int
    dram_bytes: int
    known: bool


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


class OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what runs under it, operator by operator.

    Parameters
    ----------
    convention : Convention
        What operators cost.
    weights : sequence of Tensor
        What counts as weights.
    invents_numbers : bool
        A number that code takes out of a fake tensor is 0. Only of floating point: those are
        losses and norms, which are looked at; whole numbers and Booleans decide what runs.

    Attributes
    ----------
    launches : list
        What has run, to be counted by `counts`.
    layers : Layers
        Which module it belongs to.
    """

    def __init__(
        self, convention: Convention, weights: Sequence[Tensor], *, invents_numbers: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: list[_Launch] = []
        self.layers = Layers()
        self._convention = convention
        self._invents_numbers = invents_numbers
        self._memory: dict[int, StorageWeakRef] = {}  # held, so that no number comes twice
        self._weights = {self._number(weight) for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            result = func(*args, **kwargs)
        except DataDependentOutputException:
            if not (self._invents_numbers and func is _NUMBER_OF and args[0].is_floating_point()):
                raise
            return 0.0
        if func.namespace not in _NOT_KERNELS:
            self._charge(Call(func, args, kwargs, result))
        return result

    def counts(
        self,
        kinds: Mapping[str, str],
        batch_size: int,
        *,
        minibatches: int = 1,
        launches: Sequence[_Launch] | None = None,
    ) -> Counts:
        """What ran, as counts of a minibatch.

        Parameters
        ----------
        kinds : mapping of str to str
            The class of each module, by its path.
        batch_size : int
            Samples of a minibatch.
        minibatches : int
            That ran; counts are the mean of them.
        launches : sequence, optional
            Some of `launches`, in place of all.
        """
        launches = self.launches if launches is None else launches

        def mean(own: Sequence[_Launch]) -> tuple[int, int, int]:
            flop, dram_bytes, kernels = (round(total / minibatches) for total in _sums(own))
            return flop, dram_bytes, kernels

        layers = tuple(
            LayerCount(name, kinds.get(name, ""), *mean(own))
            for name, own in _grouped(launches, "layer").items()
        )
        operators = [
            OperatorCount(name, *mean(own)) for name, own in _grouped(launches, "operator").items()
        ]
        total = sum(launch.dram_bytes for launch in launches)
        strange = _grouped([launch for launch in launches if not launch.known], "operator")
        unknown = [
            UnknownOperator(
                name, len(own), sum(launch.dram_bytes for launch in own) / total if total else 0.0
            )
            for name, own in strange.items()
        ]
        return Counts(
            flop=sum(layer.flop for layer in layers),
            dram_bytes=sum(layer.dram_bytes for layer in layers),
            weight_bytes=round(sum(launch.weight_bytes for launch in launches) / minibatches),
            kernels=sum(layer.kernels for layer in layers),
            batch_size=batch_size,
            layers=layers,
            operators=tuple(sorted(operators, key=lambda o: -o.dram_bytes)),
            unknown=tuple(sorted(unknown, key=lambda u: -u.bytes_share)),
        )

    def _charge(self, call: Call) -> None:
        known = self._convention.knows(call)
        try:
            cost = self._convention.cost(call)
        except Exception:  # of a rule: this call has other arguments than it was written for
            cost, known = self._convention.otherwise(call), False
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


class Layers:
    """Which module an operator belongs to, in the backward pass too.

    The nodes of the autograd graph are numbered as they are made, so a node of the backward pass
    belongs to the module that was running when its number was given.
    """

    def __init__(self) -> None:
        self.outside = MODEL  # where no module runs
        self._thread = threading.get_ident()
        self._running: list[str] = []
        self._starts: list[int] = []  # from this node on ...
        self._names: list[str] = []  # ... this module ran

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Follow the modules of a model as they run in this thread."""
        names = {module: name or MODEL for name, module in model.named_modules()}
        self._thread = threading.get_ident()

        def enter(module: nn.Module, args: Any) -> None:
            if threading.get_ident() != self._thread:  # hooks are the process's
                return
            self._running.append(names.get(module, self._running[-1] if self._running else MODEL))
            self._note()

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == self._thread:
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


class AsOnGpu(TorchFunctionMode):
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
def plain_kernels(onednn: bool = False) -> Iterator[None]:
    """No kernels that only a CPU has, or only inference: counts are the same everywhere.

    Where it really computes, oneDNN is much quicker; it has kernels of its own of recurrent layers
    alone.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of TF32, which is not asked for
        flags = torch.backends.mkldnn.flags(enabled=onednn)
        flags.__enter__()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            flags.__exit__(None, None, None)
