"""How a command that drives a device is stopped by a signal: at once, and with it restored."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(KeyboardInterrupt):
    """A signal asked to stop; no `Exception`, so that a step's own handlers let it through."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def stopping_cleanly(hint: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Let the first signal stop the body at once; later ones must not break its restoring.

    Then the command ends, with `hint` on stderr. Gives a function that stops the body again, for
    a step that swallowed the signal.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise _Stopped(number)

    def check() -> None:
        if received:
            raise _Stopped(received[0])

    # One that is ignored stays so: nohup ignores SIGHUP for a profile that outlives its terminal.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield check
    except _Stopped as stopped:
        name = stopped.signal.name
        click.echo(f"stopped by {name}, the device is restored; {hint()}", err=True)
        sys.exit(128 + stopped.signal)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
