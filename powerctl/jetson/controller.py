"""Who sets the modes of a board: the right to change it, and this process itself or the daemon."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from powerctl.axes import ModeAxes, PowerMode
from powerctl.errors import ModeNotInForce
from powerctl.jetson.clocks import Clocks, Verification
from powerctl.jetson.discovery import Discovery, discover
from powerctl.jetson.gpu import find_gpu, railgate
from powerctl.jetson.identity import Identity, identify
from powerctl.jetson.journal import Journal, Lock
from powerctl.jetson.restoring import restore_found
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
        """Whether this process has the right to change the board now."""
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
            restore_found(self._sysfs, self.journal)
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


class Controller(Protocol):
    """Sets modes, and gives the board back as it was found."""

    identity: Identity
    axes: ModeAxes

    def apply(self, mode: PowerMode) -> None:
        """Set a mode and read it back; if it is not in force, all is restored."""

    def mode(self) -> PowerMode:
        """Which mode is in force on the board."""
        ...

    def verify(self) -> None:
        """Hold the applied mode against what is measured now; see `Verification.check`."""

    def restore(self) -> None:
        """Bring back the state found before the first `apply`, and let others control the board."""

    def close(self) -> None:
        """Restore, and be done; a second time does nothing."""


class OwnController:
    """Writes the kernel's files itself, which only root may.

    Making one only looks. From the first `apply` the board is locked against other controllers,
    and its state is on disc before the first write.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    board : str, optional
        Which board it is, for where no device tree is to be seen.
    must_restore : bool
        Whether it may not be made where something cannot be restored: what a killed controller has
        left, or a GPU's power that was switched on to look at it. Else `bring_back` raises it.

    Attributes
    ----------
    identity : Identity
        Which board it is.
    axes : ModeAxes
        What its kernel lets be set.

    Raises
    ------
    DeviceUnavailable
        If clocks are missing; says what mends it.
    ModeNotInForce
        If something cannot be restored.
    """

    def __init__(self, sysfs: Sysfs, board: str | None = None, must_restore: bool = True) -> None:
        self._sysfs = sysfs
        self.identity = identify(sysfs, board)
        self._control = Control(sysfs)
        found = self._discover_awake(() if must_restore else (ModeNotInForce,))
        self.axes = found.axes()
        self._clocks = Clocks(sysfs, found, self._control.journal)
        self._verification: Verification | None = None

    def apply(self, mode: PowerMode) -> None:
        """Set a mode and read it back; if it is not in force, all is restored.

        Raises
        ------
        ModeNotInSpace
            If the board has no such mode.
        ModeNotInForce
            Naming the axis and the reason.
        DeviceUnavailable
            If another controls the board, or this process may not.
        """
        self.axes.check(mode)
        self._verification = None
        self._control.take()
        try:
            self._wake_gpu()
            self._clocks.apply(mode)
        except BaseException:
            self.restore()
            raise
        self._verification = Verification(self._clocks, mode)

    def mode(self) -> PowerMode:
        """The mode in force, by the limits that the kernel holds."""
        return self._clocks.mode(self.axes)

    def verify(self) -> None:
        """Hold the applied mode against what is measured now; see `Verification.check`."""
        if self._verification is not None:
            self._verification.check()

    def restore(self) -> None:
        """Bring back the state found before the first `apply`, and let others control the board."""
        self._verification = None
        self._control.give_back()

    close = restore

    @property
    def is_in_control(self) -> bool:
        """Whether this process has the board, so that something may have to be restored."""
        return self._control.is_held

    def bring_back(self) -> None:
        """Restore, also what a controller left that was killed; raises as `apply` does."""
        self._control.take()
        self.restore()

    def keep_noted(self) -> None:
        """See that what was found is still on disc, and write it again if somebody removed it."""
        self._control.journal.keep()

    def _discover_awake(self, later: tuple[type[Exception], ...]) -> Discovery:
        """What there is, with the GPU's power on for the moment if it was off.

        Parameters
        ----------
        later : tuple of type
            What of restoring is not raised here.
        """
        found = discover(self._sysfs, self.identity)
        if not found.gpu_is_gated:
            return found
        try:
            with suppress(*later):
                self._control.take()
            self._wake_gpu()
            return discover(self._sysfs, self.identity)
        finally:
            with suppress(*later):
                self._control.give_back()

    def _wake_gpu(self) -> None:
        """Switch the GPU's power on if it is off, until all is restored: asleep it has no clock."""
        gate = railgate(self._sysfs)
        if gate is None or find_gpu(self._sysfs) is not None:
            return
        try:
            self._control.journal.note({gate: self._sysfs.read(gate)})
            self._sysfs.write(gate, 0)
        except OSError as error:
            raise ModeNotInForce(f"gpu cannot be woken: {error}") from None
