"""Waiting for what threads and processes do, for as long as a busy machine takes for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# What needs seconds on an idle machine needs minutes on a busy one. Only what hangs takes so long.
TIMEOUT_S = 600.0


def await_state(
    look: Callable[[], T], goes_on: Callable[[], bool] = lambda: True, pause_s: float = 0.05
) -> T:
    """What a look finds, as soon as it is true.

    Parameters
    ----------
    look : callable
        What is waited for.
    goes_on : callable
        Whether it may still come: not when the process that is to bring it about has ended.
    pause_s : float
        Between two looks.
    """
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        may_come = goes_on() and time.monotonic() < give_up_s
        if found := look():
            return found
        assert may_come, f"it never came; the last look found {found!r}"
        time.sleep(pause_s)
