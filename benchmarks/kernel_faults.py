"""Faults of a fake board: what a kernel may do with a write, other than to obey."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from powerctl.fakes.fake_sysfs import Fault

Misdeed = Callable[[str, str], "str | None"]
"""Given path and text of a write, what is written instead; None for nothing; may raise."""


def _refusing(number: int) -> Misdeed:
    def refuse(path: str, text: str) -> str | None:
        raise OSError(number, os.strerror(number), f"/{path}")

    return refuse


def _lowered(path: str, text: str) -> str | None:
    """Another value is taken, and nothing is said."""
    return str(int(text) // 2) if text.isdigit() else None


FAULTS: dict[str, Misdeed] = {
    "EIO": _refusing(errno.EIO),
    "EBUSY": _refusing(errno.EBUSY),
    "permission": _refusing(errno.EACCES),
    "clamped": _lowered,
    "ignored": lambda path, text: None,
}


def at_write(number: int, misdeed: Misdeed) -> Fault:
    """A fault at one write, counted from the first that a `FakeSysfs` makes."""
    return lambda write, path, text: misdeed(path, text) if write == number else text
