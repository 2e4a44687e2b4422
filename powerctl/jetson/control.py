"""Control of a board: taken from others, noted before it is used, and given back undone."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from powerctl.jetson.journal import Journal, Lock
from powerctl.jetson.restoring import restore
from powerctl.jetson.sysfs import Sysfs

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Control:
    """The right to change a board, from the first change until all is as it was found.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.

    Attributes
    ----------
    journal : Journal
        What was found; whoever writes notes it there first.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self.journal = Journal(sysfs)
        self._sysfs = sysfs
        self._lock: Lock | None = None
        self._pid = os.getpid()

    @property
    def is_held(self) -> bool:
        """Whether this process has it now."""
        return self._lock is not None

    def take(self) -> None:
        """Lock the board, and restore what a killed controller left; once held, does nothing.

        From here on SIGTERM and SIGHUP end the process as an exit does, where they would have
        ended it at once.

        Raises
        ------
        InUse
            If another controls it.
        DeviceUnavailable
            If this process may not.
        ModeNotInForce
            If what was left cannot be restored.
        """
        if self._lock is not None:
            return
        _exit_on_signals()
        self._lock = Lock(self._sysfs)
        self.journal.reload()
        if self.journal.found or self.journal.damage:
            self.give_back()
            self.take()

    def give_back(self) -> None:
        """Restore the board and unlock it; if it cannot be restored, it stays locked."""
        if self._lock is None or os.getpid() != self._pid:  # or it is a fork's copy
            return
        with _undisturbed():
            restore(self._sysfs, self.journal)
            self._lock.release()
            self._lock = None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep signals waiting until what must be finished is finished."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_on_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
