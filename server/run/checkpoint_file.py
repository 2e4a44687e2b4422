"""A checkpoint as a file: an .npz archive whose comment is the SHA-256 of all before it.

`numpy.load` opens it. What is not an array is JSON, in the array ``state.json``; there are no
pickles.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from powerctl.errors import PowerctlError
from powerctl.reading import RESULTS, misread, parse_arrays
from wattfed.strategies.state import State

_STATE = "state.json"
_DIGEST = 2 * hashlib.sha256().digest_size  # in hexadecimal digits


class Damaged(PowerctlError):
    """A file that is not, or no longer, a checkpoint."""


def to_bytes(state: State) -> bytes:
    """The file of a state; `TypeError` for what a state cannot hold."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps(_packed(state, "", arrays))
    arrays[_STATE] = np.frombuffer(text.encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    archive = buffer.getvalue()
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(digest).to_bytes(2, "little") + digest  # a zip ends in its comment


def from_bytes(content: bytes) -> State:
    """The state of a file; `Damaged` unless every byte is as it was written."""
    archive, digest = content[: -_DIGEST - 2] + bytes(2), content[-_DIGEST:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        raise Damaged("damaged: its checksum is wrong")
    with misread("damaged"):
        arrays = parse_arrays(archive, "its archive", RESULTS)
        return dict(_unpacked(json.loads(arrays.pop(_STATE).tobytes()), arrays))


def digest_of(state: State) -> str:
    """A hash that differs where states do."""
    return hashlib.sha256(to_bytes(state)).hexdigest()


def _packed(value: Any, path: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """What JSON can hold; arrays go to their places, by path, in `arrays`."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            raise TypeError(f"{path}: an array of objects cannot be kept")
        arrays[path] = np.asarray(value)
        return {"$array" if isinstance(value, np.ndarray) else "$number": path}
    if isinstance(value, ArrayRecord):
        numbers = {name: array.numpy() for name, array in value.items()}
        return {"$record": _packed(numbers, path, arrays)}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and not key.startswith("$") for key in value):
            raise TypeError(f"{path}: keys must be texts, got {list(value)}")
        below = f"{path}/" if path else ""
        return {key: _packed(one, f"{below}{key}", arrays) for key, one in value.items()}
    if isinstance(value, (list, tuple, frozenset)):
        items = sorted(value) if isinstance(value, frozenset) else value
        packed = [_packed(one, f"{path}/{i}", arrays) for i, one in enumerate(items)]
        return packed if isinstance(value, list) else {f"${type(value).__name__}": packed}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be kept")


def _unpacked(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, packed),) = value.items() if len(value) == 1 else [("", value)]
    if kind == "$array":
        return arrays[packed]
    if kind == "$number":
        return arrays[packed][()]
    if kind == "$record":
        return ArrayRecord({k: Array(a) for k, a in _unpacked(packed, arrays).items()})
    if kind in ("$tuple", "$frozenset"):
        return {"$tuple": tuple, "$frozenset": frozenset}[kind](_unpacked(packed, arrays))
    return {key: _unpacked(one, arrays) for key, one in value.items()}
