"""The checkpoints of a run: the last two, each a state in a file, and what growing files held.

A file is an .npz archive whose comment is the SHA-256 of all before it; `numpy.load` opens it. What
is not an array is JSON, in the array ``state.json``; there are no pickles.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.common.logger import log
from numpy.typing import NDArray

from powerctl.durable import remove_partials, replace_file
from powerctl.errors import InvalidInput, PowerctlError
from powerctl.reading import RESULTS, misread, parse_arrays, read_bytes
from wattfed.strategies.state import State

_STATE = "state.json"
_DIGEST = 2 * hashlib.sha256().digest_size  # in hexadecimal digits
_KEPT = 2
_LENGTHS, _HEADS = "lengths", "heads"


class Checkpoints:
    """Files ``round-NNNN.npz`` in a folder of their own.

    A checkpoint is on disc, with all that the growing files held, before the one before the last
    is removed: a kill or a loss of power at any moment leaves one that is whole. It is written
    while the next round goes on. The context keeps other processes out; leaving it waits for what
    is being written.

    Parameters
    ----------
    folder : Path
        Theirs.
    growing : tuple of Path
        Files that are appended to in every round; going on cuts them to what they were, but for
        their first line, a head of columns that may have gained some since.
    """

    def __init__(self, folder: Path, growing: tuple[Path, ...]) -> None:
        self.folder = folder
        self._growing = growing
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] = Future()
        self._written.set_result(None)

    def __enter__(self) -> Checkpoints:
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise InvalidInput(
                f"{self.folder.parent}: another process writes this run; wait for it, or give "
                "another name"
            ) from None
        for folder in (self.folder, self.folder.parent):
            remove_partials(folder)
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.shutdown()
        os.close(self._lock)

    def save(self, server_round: int, state: State) -> None:
        """Keep the state after a round; where the disc is full, warn, and keep the earlier ones."""
        lengths = {file.name: file.stat().st_size for file in self._growing}
        heads = {file.name: _head_length(file) for file in self._growing if lengths[file.name]}
        content = to_bytes({**state, _LENGTHS: lengths, _HEADS: heads})
        self._written.result()
        self._written = self._writer.submit(self._write, server_round, content)

    def _write(self, server_round: int, content: bytes) -> None:
        path = self.folder / f"round-{server_round:04d}.npz"
        try:
            for file in self._growing:
                _sync(file)
            replace_file(path, content)
        except OSError as error:
            log(
                WARNING,
                "%s: no checkpoint: %s; the run goes on, and after a kill from an earlier round",
                *(path, error.strerror),
            )
            return
        for old in self._files()[:-_KEPT]:
            old.unlink()

    def last(self) -> State | None:
        """The last state that is whole; None if there never was one.

        Raises
        ------
        InvalidInput
            If every one is damaged.
        """
        reasons = []
        for path in reversed(self._files()):
            try:
                return self._read(path)
            except (Damaged, InvalidInput, OSError) as error:
                reasons.append(f"{path}: {error}".replace(f"{path}: {path}: ", f"{path}: "))
                log(WARNING, "%s; trying the checkpoint before", reasons[-1])
        if reasons:
            raise InvalidInput(
                f"no checkpoint is whole: {'; '.join(reasons)}; begin the run again without resume"
            )
        return None

    def last_round(self) -> int | None:
        """The round of the last checkpoint; None if there is none."""
        files = self._files()
        return _round_of(files[-1]) if files else None

    def cut(self, state: State) -> None:
        """Take from the growing files what came after a state."""
        for file in self._growing:
            os.truncate(file, _length_then(file, state))
        for path in self._files():
            if _round_of(path) > state["round"]:
                path.unlink()

    def clear(self) -> None:
        """Remove all checkpoints of the run."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.npz"), key=_round_of)

    def _read(self, path: Path) -> State:
        state = from_bytes(read_bytes(path, RESULTS))
        for file in self._growing:
            if not file.exists() or file.stat().st_size < _length_then(file, state):
                raise Damaged(f"{file.name} has lost rounds that are in it")
        return state


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))


def _length_then(file: Path, state: State) -> int:
    """The length of a growing file with a state, had its head been as it is now."""
    head = _head_length(file)
    return int(state[_LENGTHS][file.name] + head - state[_HEADS].get(file.name, head))


def _head_length(file: Path) -> int:
    with open(file, "rb") as opened:
        return len(opened.readline())


def _sync(path: Path) -> None:
    with open(path, "ab") as file:
        os.fsync(file.fileno())


class Damaged(PowerctlError):
    """A file that is not, or no longer, a checkpoint."""


def to_bytes(state: State) -> bytes:
    """The file of a state; `TypeError` for what a state cannot hold."""
    arrays: dict[str, Any] = {}  # of arrays: savez has options too, by other names
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
    items: list[tuple[Any, Any]] = list(value.items()) if len(value) == 1 else [("", value)]
    ((kind, packed),) = items
    if kind == "$array":
        return arrays[packed]
    if kind == "$number":
        return arrays[packed][()]
    if kind == "$record":
        return ArrayRecord({k: Array(a) for k, a in _unpacked(packed, arrays).items()})
    if kind in ("$tuple", "$frozenset"):
        return {"$tuple": tuple, "$frozenset": frozenset}[kind](_unpacked(packed, arrays))
    return {key: _unpacked(one, arrays) for key, one in value.items()}
