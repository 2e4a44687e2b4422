"""A command as people run it: in a terminal or with its output in a pipe, and stopped."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S
from tests.warm import Popen

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Command:
    """A console command of this installation in a session of its own.

    Parameters
    ----------
    words : sequence
        Its name, and what follows.
    cwd : Path
        Where it runs.
    terminal : bool
        Whether it has a terminal of 100 columns, in place of a pipe for both of its outputs.
    """

    def __init__(self, *words: object, cwd: Path, terminal: bool = False) -> None:
        if any(signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGINT, signal.SIGTERM)):
            pytest.skip("signals are ignored here, and so by what is started")
        name, *more = map(str, words)
        self.text = ""
        self._screen, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self._process = Popen(
            [str(Path(sys.executable).with_name(name)), *more],
            cwd=cwd,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, words: str) -> None:
        """Wait until it has printed some words."""
        while words not in self.text:
            assert self._read(), self.text

    def interrupt(self, number: int) -> int:
        """Signal it and all that it has started, as a terminal and systemd do; its exit code."""
        os.killpg(self._process.pid, number)
        return self.end()

    def end(self) -> int:
        """Wait until it and all that has its outputs have ended; its exit code."""
        while self._read():
            pass
        os.close(self._screen)
        return self._process.wait(TIMEOUT_S)

    def _read(self) -> bool:
        assert select.select([self._screen], [], [], TIMEOUT_S)[0], self.text
        try:
            read = os.read(self._screen, 65536)
        except OSError:  # of a terminal that nobody has any more
            return False
        self.text += _TERMINAL_CODE.sub("", read.decode(errors="replace"))
        return bool(read)
