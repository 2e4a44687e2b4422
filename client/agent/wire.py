"""Records and arrays of federated rounds on the wire; without torch, for the ClientApp's sake."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from powerctl.errors import InvalidInput
from wattfed.client.agent.proto import agent_pb2 as pb

_DTYPES = {
    "float32": pb.FLOAT32,
    "float64": pb.FLOAT64,
    "float16": pb.FLOAT16,
    "int8": pb.INT8,
    "int16": pb.INT16,
    "int32": pb.INT32,
    "int64": pb.INT64,
    "uint8": pb.UINT8,
    "bool": pb.BOOL,
}
_NAMES = {number: name for name, number in _DTYPES.items()}
_LISTS = {float: ("reals", pb.Reals), int: ("wholes", pb.Wholes), str: ("texts", pb.Texts)}


def record_to_proto(values: Mapping[str, Any]) -> pb.Record:
    """A flat record: scalars, and lists of one type; an empty list is one of reals."""
    return pb.Record(values={key: _to_value(key, value) for key, value in values.items()})


def record_from_proto(record: pb.Record) -> dict[str, Any]:
    """The record as plain values."""
    return {key: _from_value(value) for key, value in record.values.items()}


def _to_value(key: str, value: Any) -> pb.Value:
    if isinstance(value, bool):
        return pb.Value(truth=value)
    if isinstance(value, int):
        return pb.Value(whole=value)
    if isinstance(value, float):
        return pb.Value(real=value)
    if isinstance(value, str):
        return pb.Value(text=value)
    if isinstance(value, bytes):
        return pb.Value(blob=value)
    if isinstance(value, list | tuple):
        kind = type(value[0]) if value else float
        if kind in _LISTS and all(type(item) is kind for item in value):
            name, message = _LISTS[kind]
            return pb.Value(**{name: message(values=value)})
    raise InvalidInput(f"{key}: a {type(value).__name__} cannot be sent: {value!r}")


def _from_value(value: pb.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        raise InvalidInput("a record has a value without type")
    found = getattr(value, kind)
    return list(found.values) if kind in ("reals", "wholes", "texts") else found


def arrays_to_proto(arrays: Mapping[str, np.ndarray]) -> list[pb.NamedTensor]:
    """Arrays by name."""
    return [pb.NamedTensor(name=name, tensor=_to_tensor(a)) for name, a in arrays.items()]


def arrays_from_proto(tensors: Any) -> dict[str, np.ndarray]:
    """The arrays, each with memory of its own.

    Raises
    ------
    InvalidInput
        For an unknown type, or data that does not fit the shape.
    """
    return {item.name: _to_array(item.name, item.tensor) for item in tensors}


def _to_tensor(array: np.ndarray) -> pb.Tensor:
    if array.dtype.name not in _DTYPES:
        raise InvalidInput(f"arrays of {array.dtype} cannot be sent")
    data = np.ascontiguousarray(array).tobytes()
    return pb.Tensor(dtype=_DTYPES[array.dtype.name], shape=array.shape, data=data)


def _to_array(name: str, tensor: pb.Tensor) -> np.ndarray:
    dtype = _NAMES.get(tensor.dtype)
    if dtype is None:
        raise InvalidInput(f"array {name} is of unknown type {tensor.dtype}")
    shape = tuple(tensor.shape)
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if any(size < 0 for size in shape) or len(tensor.data) != wanted:
        raise InvalidInput(
            f"array {name} of shape {shape}, {dtype}: {wanted} bytes, not {len(tensor.data)}"
        )
    return np.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(shape)
