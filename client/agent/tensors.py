"""Tensors of inference in and out of the agent's messages, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from powerctl.errors import InvalidInput
from wattfed.client.agent.model_files import DTYPES
from wattfed.client.agent.proto import agent_pb2 as pb


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_NUMBERS = {dtype: pb.DType.Value(_name(dtype).upper()) for dtype in DTYPES}
_DTYPES = {int(number): dtype for dtype, number in _NUMBERS.items()}
_MOST_DIMENSIONS = 8


@dataclass(frozen=True)
class InputSpec:
    """An input of one sample: its shape, without batch dimension, and type."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or 'scalar'}:{_name(self.dtype)}"

    def check(self, tensor: torch.Tensor, number: int) -> None:
        """Raise `InvalidInput` unless a tensor is such an input."""
        if tuple(tensor.shape) != self.shape or tensor.dtype != self.dtype:
            found = InputSpec(tuple(tensor.shape), tensor.dtype)
            raise InvalidInput(f"input {number} is {found}, the model takes {self}")

    def example(self, batch_size: int) -> torch.Tensor:
        """A batch of so many samples of zeros."""
        return torch.zeros((batch_size, *self.shape), dtype=self.dtype)

    def to_proto(self) -> pb.InputSpec:
        """The message that describes this input."""
        return pb.InputSpec(dtype=_NUMBERS[self.dtype], shape=self.shape)


def spec_of(dtype: str, *shape: int) -> InputSpec:
    """The input that a model's process tells: torch's name of a type, and a shape."""
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or len(sizes) > _MOST_DIMENSIONS:
        raise ValueError(f"inputs of shape {sizes}")
    return InputSpec(sizes, {str(known): known for known in _NUMBERS}[dtype])


def parse_inputs(text: str) -> tuple[InputSpec, ...]:
    """Inputs written as ``3x224x224``, ``128:int64``, or several joined by ``+``."""
    return tuple(_parse(part) for part in text.split("+"))


def _parse(text: str) -> InputSpec:
    shape, _, dtype = text.partition(":")
    known = {_name(d): d for d in _NUMBERS}
    try:
        sizes = () if shape == "scalar" else tuple(int(size) for size in shape.split("x"))
        if any(size < 1 for size in sizes) or len(sizes) >= _MOST_DIMENSIONS:
            raise ValueError
        return InputSpec(sizes, known[dtype or "float32"])
    except (ValueError, KeyError):
        raise InvalidInput(
            f"cannot read {text!r} as an input; write the shape of one sample and a type, as "
            f"3x224x224 or 128:int64 (types: {', '.join(sorted(known))})"
        ) from None


def dtype_of(number: int) -> torch.dtype:
    """The torch type of a type of the protocol; raises `InvalidInput` for an unknown one."""
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise InvalidInput(f"tensor of unknown type {number}")
    return dtype


def decode_tensor(tensor: pb.Tensor) -> torch.Tensor:
    """The torch tensor of a message, with memory of its own.

    Raises
    ------
    InvalidInput
        For an unknown type, a negative size, too many dimensions, or data of another length.
    """
    dtype = dtype_of(tensor.dtype)
    shape = tuple(tensor.shape)
    if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise InvalidInput(
            f"tensor of shape {shape[: _MOST_DIMENSIONS + 1]}: at most {_MOST_DIMENSIONS} "
            "dimensions, none negative"
        )
    wanted = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != wanted:
        raise InvalidInput(
            f"tensor {InputSpec(shape, dtype)} takes {wanted} bytes, got {len(tensor.data)}"
        )
    if not wanted:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:  # any byte but 0 is true; torch must see none but 0 and 1
        return torch.frombuffer(bytearray(tensor.data), dtype=torch.uint8).reshape(shape).bool()
    return torch.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(shape)


def encode_tensor(tensor: torch.Tensor) -> pb.Tensor:
    """The message of a torch tensor; raises `InvalidInput` for a type that there is none of."""
    if tensor.dtype not in _NUMBERS:
        names = ", ".join(sorted(_name(d) for d in _NUMBERS))
        raise InvalidInput(f"tensors of {_name(tensor.dtype)} cannot be sent; types: {names}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return pb.Tensor(dtype=_NUMBERS[tensor.dtype], shape=tuple(tensor.shape), data=data)


def check_inputs(tensors: Sequence[torch.Tensor], specs: Sequence[InputSpec]) -> None:
    """Raise `InvalidInput` unless tensors are the inputs of one sample."""
    if len(tensors) != len(specs):
        raise InvalidInput(f"got {len(tensors)} inputs, the model takes {len(specs)}")
    for number, (tensor, spec) in enumerate(zip(tensors, specs, strict=True)):
        spec.check(tensor, number)
