"""The checkpoints of a run: the last two, and the lengths that its growing files had with each."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import Future, ThreadPoolExecutor
from logging import WARNING
from pathlib import Path

from flwr.common.logger import log

from powerctl.durable import remove_partials, replace_file
from powerctl.errors import InvalidInput
from powerctl.reading import RESULTS, read_bytes
from wattfed.server.run.checkpoint_file import Damaged, from_bytes, to_bytes
from wattfed.strategies.state import State

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
        """Remove all of them."""
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
    return int(state[_LENGTHS][file.name] + head - state.get(_HEADS, {}).get(file.name, head))


def _head_length(file: Path) -> int:
    with open(file, "rb") as opened:
        return len(opened.readline())


def _sync(path: Path) -> None:
    with open(path, "ab") as file:
        os.fsync(file.fileno())
