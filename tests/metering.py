"""A meter of energy against a clock, also where the machine is busy between their readings."""

from __future__ import annotations

import time
from collections.abc import Callable


def counts(
    energy_j: Callable[[], float], power_w: float, idle: Callable[[float], object] = time.sleep
) -> bool:
    """Whether a meter counts a constant power: for as long as between its looks, or around them."""
    around_s, start_j = time.monotonic(), energy_j()
    between_s = time.monotonic()
    idle(0.1)
    between_s = time.monotonic() - between_s
    counted_j = energy_j() - start_j
    around_s = time.monotonic() - around_s
    slack_j = 1e-9
    return power_w * between_s - slack_j <= counted_j <= power_w * around_s + slack_j
