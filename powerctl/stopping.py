"""How a signal stops a command: at once, undoing what it must, with a line on what is kept."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

import click

from powerctl.errors import PowerctlError

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Raised in the main thread when a signal asks the command to stop.

    No `Exception`, so that a step's own handlers let it through, and no `KeyboardInterrupt`, which
    click answers with "Aborted!".
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stopping_cleanly(hint: Callable[[], str] = str) -> Iterator[Callable[[], None]]:
    """Let the first signal stop the body at once; later ones must not break its restoring.

    Then the process ends as one that the signal ended does (130, 143), with `hint` on stderr. Gives
    a function that stops the body again, for a step that swallowed the signal.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise Stopped(number)

    def check() -> None:
        if received:
            raise Stopped(received[0])

    # One that is ignored stays so: nohup ignores SIGHUP for a profile that outlives its terminal.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        handled = []
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield check
    except (Stopped, Exception) as error:
        if isinstance(error, PowerctlError) or not (received or isinstance(error, Stopped)):
            raise  # else C code, such as of plots, has made another error of it
        stopped = error if isinstance(error, Stopped) else Stopped(received[0])
        more = hint()
        line = f"stopped by {stopped.signal.name}{', ' if more else ''}{more}"
        click.echo(line, err=True)
        sys.exit(128 + stopped.signal)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command(*options: str) -> str:
    """What was typed, with options that it lacks: the command that goes on."""
    words = [*sys.argv[1:], *(option for option in options if option not in sys.argv)]
    return f"{click.get_current_context().find_root().info_name} {shlex.join(words)}"


@contextmanager
def unheard() -> Iterator[None]:
    """Start processes that no Ctrl-C of their terminal reaches: their parent ends them."""
    resource_tracker.ensure_running()  # whose start ends what is blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # which what is started inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
