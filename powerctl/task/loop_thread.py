"""The user's loop in a thread of its own, which waits for its turn whenever it asks for data.

One turn lasts from when a loop is let go until it asks for a minibatch that there is: computing on
one, and at the end of an epoch whatever the loop does between epochs. Threads never run at the
same time: one hands over to the other and waits.
"""

from __future__ import annotations

import contextvars
import copy
import ctypes
import math
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from torch.utils.data import DataLoader

from powerctl.errors import TaskFailed
from powerctl.task.data import minibatches_of

Iterate: TypeAlias = Callable[[Callable[[], Iterator[Any]], "int | None"], Iterator[Any]]

_GRACE_S = 1.0  # in which a loop that was given up mostly ends; what others do comes after it


class LoopEnded(BaseException):
    """Raised inside a user's loop whose plan has ended, so that what it opened is closed.

    No `Exception`: a loop that goes on after errors must not go on after this.
    """


class Turns:
    """A function that runs in a thread of its own, a turn at a time.

    Parameters
    ----------
    body : callable
        The function; it calls `wait` for its next turn.
    name : str
        What errors call it.
    limit_s : float
        A turn that lasts longer is given up: the thread is asked to end, and left to itself.
    """

    def __init__(self, body: Callable[[], Any], name: str, limit_s: float = math.inf) -> None:
        self.ended = False
        self.result: Any = None
        self._body = body
        self._name = name
        self._limit_s = None if math.isinf(limit_s) else limit_s
        self._granted: SimpleQueue[bool] = SimpleQueue()
        self._returned: SimpleQueue[None] = SimpleQueue()
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=name, daemon=True
        )

    def take(self) -> None:
        """Let it run until it waits again or ends; raises what it raised.

        Raises
        ------
        TaskFailed
            Also if the turn lasts too long.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._granted.put(True)
        try:
            self._returned.get(timeout=self._limit_s)
        except Empty:
            self._abandon()
            raise TaskFailed(
                f"{self._name} did not ask for its next minibatch within {self._limit_s:g} s: it "
                "was given up"
            ) from None
        if self._error is not None:
            self.ended = True
            raise self._error

    def wait(self) -> None:
        """Give the turn back and wait for the next; called by the body, in its own thread."""
        if threading.get_ident() != self._thread.ident:
            raise TaskFailed(
                f"{self._name} reads its minibatches in another thread than its own, where no "
                "turns can be taken: read ahead with the workers of a DataLoader"
            )
        self._returned.put(None)
        if not self._granted.get():
            raise LoopEnded

    def close(self) -> None:
        """End it where it waits, and wait until it has cleaned up."""
        if self._thread.ident is None or self.ended:
            self.ended = True
            return
        until_s = math.inf if self._limit_s is None else time.monotonic() + self._limit_s
        while self._thread.is_alive():
            self._granted.put(False)  # again, if it has caught the first and gone on
            left_s = None if math.isinf(until_s) else max(0.0, until_s - time.monotonic())
            try:
                self._returned.get(timeout=left_s)
            except Empty:
                self._abandon()
                raise TaskFailed(
                    f"{self._name} did not end within {self._limit_s:g} s after its last "
                    "minibatch: it was given up"
                ) from None
            if self.ended:
                self._thread.join()
        self.ended = True

    def _run(self) -> None:
        try:
            self.result = self._body()
        except LoopEnded:
            pass
        except BaseException as error:  # for the thread that takes the turns
            self._error = error
        self.ended = True
        self._returned.put(None)

    def _abandon(self) -> None:
        """Raise `LoopEnded` in the thread as soon as it runs Python; it may never do so."""
        self.ended = True
        if self._thread.ident is not None:
            ident = ctypes.c_ulong(self._thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(LoopEnded))
            self._thread.join(_GRACE_S)


class PacedLoaders:
    """Loaders whose `next` waits for a turn, and how many minibatches they have given.

    Parameters
    ----------
    wait : callable
        Gives the turn back and waits for the next.
    move : callable, optional
        From a minibatch to what is handed out: the same where the model is.
    """

    def __init__(self, wait: Callable[[], None], move: Callable[[Any], Any] | None = None) -> None:
        self.minibatches = 0
        self._wait = wait
        self._move = move
        self._has_turn = True  # the first, in which the loop begins
        self._open: list[Any] = []

    def paced(self, loader: Any) -> Any:
        """A loader as it was, but for its iteration.

        See `iterated`.
        """
        return iterated(loader, lambda begin, length: _Minibatches(self, begin(), length))

    def close(self) -> None:
        """End what loaders have left running: their workers, and generators."""
        while self._open:
            end_iterator(self._open.pop())

    def opened(self, inner: Any) -> None:
        """Remember an iterator that begins, to be ended with the others."""
        if not any(inner is other for other in self._open):  # a persistent one begins again
            self._open.append(inner)

    def exhausted(self, inner: Any) -> None:
        """An iterator has come to its end; workers that stay are ended with the rest."""
        if not getattr(inner, "_persistent_workers", False):
            self._open = [other for other in self._open if other is not inner]

    def ask(self) -> None:
        """Another minibatch is asked for: wait, unless none was taken in this turn."""
        if not self._has_turn:
            self._wait()
            self._has_turn = True

    def give(self, batch: Any) -> Any:
        """A minibatch is handed out, in a turn of its own."""
        self.ask()
        self._has_turn = False
        self.minibatches += 1
        return batch if self._move is None else self._move(batch)


def iterated(loader: Any, iterate: Iterate) -> Any:
    """A loader as it was, but for its iteration.

    A `DataLoader` stays one, whatever class it is of: libraries ask for that.

    Parameters
    ----------
    loader : iterable
        Left as it is.
    iterate : callable
        From what begins the loader's own iteration, and its minibatches in an epoch (None where
        it does not say), to the minibatches of an epoch.
    """
    if not isinstance(loader, DataLoader):
        return _Iterated(loader, iterate)
    kind = type(loader)

    def begin(self: Any) -> Iterator[Any]:
        return iterate(lambda: kind.__iter__(self), minibatches_of(self))

    like: Any = copy.copy(loader)
    like._iterator = None  # of a loader whose workers stay: not the same ones
    like.__class__ = type(kind.__name__, (kind,), {"__iter__": begin})
    return like


class _Iterated:
    """A loader that is no `DataLoader`, with all that it has, and another iteration."""

    def __init__(self, loader: Any, iterate: Iterate) -> None:
        self._loader = loader
        self._iterate = iterate

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(lambda: iter(self._loader), minibatches_of(self._loader))

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _Minibatches:
    """The minibatches of an epoch, each in a turn."""

    def __init__(self, pace: PacedLoaders, inner: Iterator[Any], length: int | None) -> None:
        self._pace = pace
        self._inner = inner
        self._left = length
        pace.opened(inner)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._left != 0:  # else the epoch ends, which belongs to the turn of its last minibatch
            self._pace.ask()
        try:
            batch = next(self._inner)
        except StopIteration:
            self._pace.exhausted(self._inner)
            raise
        if self._left:
            self._left -= 1
        return self._pace.give(batch)


def end_iterator(inner: Any) -> None:
    """End what an iterator has left running: the workers of a `DataLoader`, or a generator."""
    for name in ("_shutdown_workers", "close"):
        end = getattr(inner, name, None)
        # a generator in which a loop hangs that was given up cannot be ended
        if callable(end) and not getattr(inner, "gi_running", False):
            end()
