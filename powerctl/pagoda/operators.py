"""Calls of operators as the dispatcher shows them, and what one call costs.

A `Rule` says the cost of a call. The traffic of a rule is the tensors that the operator reads and
writes, each once, in their true sizes: a broadcast operand counts what is stored of it, a view
costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

FREE = frozenset(  # neither read nor write data, though their schemas do not say so
    "_unsafe_view unsafe_split unsafe_split_with_sizes unsafe_chunk _reshape_alias lift_fresh "
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize set "
    "t transpose squeeze unsqueeze as_strided swapaxes swapdims detach alias "
    "_local_scalar_dense is_same_size sym_size sym_numel sym_stride".split()
)
_WRITE_ONLY = frozenset(  # in place, without reading what was there
    "copy fill zero bernoulli normal uniform random exponential _foreach_copy _foreach_zero".split()
)
_SHAPE_ONLY = frozenset(  # read the shape of their argument, not its data
    "zeros_like ones_like full_like rand_like randn_like randint_like new_zeros new_ones "
    "new_full".split()
)


class Transfer(NamedTuple):
    """Bytes moved between DRAM and the chip: of a tensor, where one holds them.

    `is_weight` marks what counts as a weight although no parameter holds it.
    """

    n_bytes: int
    tensor: Tensor | None = None
    is_weight: bool = False


class CallCost(NamedTuple):
    """What one call of an operator costs: FLOP, reads and writes."""

    flop: int = 0
    reads: tuple[Transfer, ...] = ()
    writes: tuple[Transfer, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of an operator with its result."""

    operator: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        """Name without overload, and without the underscore of in-place variants."""
        return base_name(self.operator)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """All arguments of the call, by name."""
        names = (argument.name for argument in self.operator._schema.arguments)
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """Tensors of the result; of an operator that returns nothing, those it wrote."""
        return tuple(tensors_in(self.result)) or tuple(self._written())

    @property
    def out(self) -> Tensor:
        """The first tensor of the result."""
        return self.outputs[0]

    def tensor(self, index: int) -> Tensor:
        """The argument at a position, which is a tensor."""
        value = self.args[index]
        assert isinstance(value, Tensor), f"{self.operator}: argument {index}"
        return value

    def get(self, name: str) -> Any:
        """The argument of a name, or its default."""
        if name in self.arguments:
            return self.arguments[name]
        schema = self.operator._schema.arguments
        return next(argument.default_value for argument in schema if argument.name == name)

    @property
    def floating(self) -> bool:
        """Whether a floating-point tensor takes part."""
        operands = (*tensors_in(self.args), *self.outputs)
        return any(t.is_floating_point() or t.is_complex() for t in operands)

    def reads(self) -> tuple[Transfer, ...]:
        """The tensors whose data the operator reads, each once."""
        seen: dict[tuple[Any, ...], Transfer] = {}
        for tensor in self._read():
            seen.setdefault(_place(tensor), moved(tensor))
        return tuple(seen.values())

    def writes(self) -> tuple[Transfer, ...]:
        """The tensors that the operator writes: in place, and new ones."""
        fresh: list[Tensor] = []
        values = self.result if isinstance(self.result, (tuple, list)) else (self.result,)
        returns = self.operator._schema.returns
        for returned, value in zip(returns, _grouped(values, len(returns)), strict=False):
            if returned.alias_info is None:
                fresh += tensors_in(value)
        return tuple(moved(tensor) for tensor in (*self._written(), *fresh))

    def _read(self) -> Iterator[Tensor]:
        local = self.name.removeprefix("aten::")
        if local in _SHAPE_ONLY:
            return
        for argument in self.operator._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and (argument.kwarg_only or local in _WRITE_ONLY):
                continue
            yield from tensors_in(self.arguments.get(argument.name))

    def _written(self) -> Iterator[Tensor]:
        for argument in self.operator._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from tensors_in(self.arguments.get(argument.name))


Rule: TypeAlias = Callable[[Call], CallCost]
Flop: TypeAlias = Callable[[Call], int]


@cache
def base_name(operator: OpOverload) -> str:
    """``aten::relu`` of ``aten.relu.default`` and of ``aten.relu_.default``."""
    return str(operator._schema.name).rstrip("_")


@cache
def is_free(operator: OpOverload) -> bool:
    """Whether an operator only makes a view, or memory that it does not fill."""
    returns = operator._schema.returns
    view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    return view or base_name(operator).removeprefix("aten::") in FREE


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, each stored one once: broadcast dimensions do not count."""
    if tensor.numel() == 0 or tensor.layout != torch.strided:
        return tensor.numel() * tensor.element_size()
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    stored = prod(size for size, stride in sizes if stride != 0) * tensor.element_size()
    return min(stored, tensor.untyped_storage().nbytes())


def moved(tensor: Tensor) -> Transfer:
    """All of a tensor, once."""
    return Transfer(stored_bytes(tensor), tensor)


def costs(flop: Flop) -> Rule:
    """The rule of an operator with these FLOP that reads its inputs and writes its outputs."""
    return lambda call: CallCost(flop(call), call.reads(), call.writes())


def traffic_only(call: Call) -> CallCost:
    """The cost of moving data: no FLOP."""
    return CallCost(0, call.reads(), call.writes())


def n_elements(tensors: Iterable[Tensor]) -> int:
    """How many elements all tensors have together."""
    return sum(tensor.numel() for tensor in tensors)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided:
        return (id(tensor),)
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride()


def _grouped(values: Iterable[Any], n_returns: int) -> tuple[Any, ...]:
    """The returned values, one per return of the schema: a list of tensors is one return."""
    return (tuple(values),) if n_returns == 1 else tuple(values)
