"""Where long work stands: a bar with the time left on a terminal, else a line now and then."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from powerctl.quantities import spoken

_QUIET_S = 2.0  # what is over sooner says nothing
_HEARTBEAT_S = 10.0  # between lines in a log, so that nobody takes a command for dead
_REDRAWN_S = 0.2  # between pictures of the bar: smooth to the eye, and costs nothing


class TimeLeft:
    """How long work still takes, from what its items took so far.

    The first items, as many as run at once, load libraries and data: they are left out as soon as
    as many others are done.

    Parameters
    ----------
    now_s : float
        When it begins.
    done : float
        Items that were done before.
    at_once : int
        Items that run at the same time.
    """

    def __init__(self, now_s: float, done: float = 0.0, at_once: int = 1) -> None:
        self._begun = self._warm = self._last = (now_s, done)
        self._at_once = at_once

    def note(self, now_s: float, done: float) -> None:
        """So many items are done, or parts of them."""
        if done > self._last[1]:
            self._last = (now_s, done)
            if self._warm is self._begun and done - self._begun[1] >= self._at_once:
                self._warm = self._last

    def left_s(self, now_s: float, total: float) -> float:
        """Seconds until `total` items are done; NaN while nothing is known."""
        last_s, done = self._last
        others = done - self._warm[1] >= self._at_once
        since_s, before = self._warm if others else self._begun
        if done <= before:
            return math.nan
        item_s = (last_s - since_s) / (done - before)
        return max(item_s * (total - done) - (now_s - last_s), 0.0)


class Progress:
    """Where long work stands, on stderr; used as a context manager around the work.

    On a terminal it is a bar that goes away in the end. In a pipe or a log it is a line, where
    nothing else was said for ten seconds. Work of less than two seconds says nothing.

    Parameters
    ----------
    what : str
        The work, in a word or two.
    total : float, optional
        Items there are; without it, the time that has passed is told.
    at_once : int
        Items that run at the same time.
    say : callable, optional
        Takes the lines, in place of stderr.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        *,
        at_once: int = 1,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._what = what
        self._total = total
        self._at_once = at_once
        self._done = 0.0
        self._note = ""
        self._left_s: float | None = None
        self._begun_s = self._said_s = time.monotonic()
        self._time_left = TimeLeft(self._begun_s, 0.0, at_once)
        self._is_drawn = say is None and sys.stderr.isatty()
        self._echo = say or (lambda line: click.echo(line, err=True))
        self._bar: Any = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def begin(self, done: float, total: float | None = None) -> None:
        """Count from here: so many items were done before."""
        with self._lock:
            self._done = done
            self._total = self._total if total is None else total
            self._time_left = TimeLeft(time.monotonic(), done, self._at_once)

    def update(
        self,
        done: float | None = None,
        *,
        total: float | None = None,
        note: str | None = None,
        left_s: float | None = None,
    ) -> None:
        """Say how many items are done, of how many, at which one it is, or the time left."""
        with self._lock:
            if done is not None:
                self._done = max(self._done, done)
                self._time_left.note(time.monotonic(), self._done)
            self._total = self._total if total is None else total
            self._note = self._note if note is None else note
            self._left_s = left_s

    def say(self, line: str) -> None:
        """Print a line that stays, above the bar where there is one."""
        with self._lock:
            self._said_s = time.monotonic()
            if self._bar is None:
                self._echo(line)
            else:
                self._bar.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _line(self) -> str:
        now_s = time.monotonic()
        words = [self._what, *([self._note] if self._note else [])]
        if self._total is None:
            return ", ".join([*words, f"{spoken(round(now_s - self._begun_s), 's')} so far"])
        counted = f"{math.floor(self._done)} of {math.floor(self._total)}"
        left_s = self._left_s
        if left_s is None:
            left_s = self._time_left.left_s(now_s, self._total)
        told = [f"about {spoken(round(left_s), 's')} left"] if math.isfinite(left_s) else []
        return ", ".join([f"{words[0]} {counted}", *words[1:], *told])

    def _tell(self) -> None:
        if self._over.wait(_QUIET_S):
            return
        if self._is_drawn:
            self._draw()
            return
        due_s = self._begun_s + _QUIET_S
        while True:
            with self._lock:
                if time.monotonic() >= due_s:
                    self._echo(self._line())
                    self._said_s = time.monotonic()
                due_s = self._said_s + _HEARTBEAT_S
            if self._over.wait(max(due_s - time.monotonic(), 0.0)):
                return

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        with ExitStack() as drawn:
            with self._lock:
                self._bar = drawn.enter_context(
                    Bar(
                        *(BarColumn(20), TextColumn("{task.description}", markup=False)),
                        console=Console(stderr=True),
                        auto_refresh=False,
                        transient=True,
                        redirect_stdout=False,
                        redirect_stderr=False,
                    )
                )
                task = self._bar.add_task("", total=None)
            while True:
                with self._lock:
                    line = self._line()
                    self._bar.update(
                        task,
                        description=line,
                        completed=self._done,
                        total=self._total,
                        refresh=True,
                    )
                if self._over.wait(_REDRAWN_S):
                    break
        self._bar = None
