"""The bounds that problems share: checked, worded, and what they leave of the batch sizes."""

from __future__ import annotations

import math
from itertools import pairwise

from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems.problem import Job


def batches(
    role: str, batch_sizes: tuple[int, ...], rate_hz: float, latency_s: float
) -> tuple[Job, ...]:
    """Those that fill before the oldest request is too late."""
    return tuple(Job(role, size) for size in batch_sizes if size / rate_hz < latency_s)


def check_positive(**limits: float) -> None:
    """Raise `InvalidInput` for the first limit that is not positive."""
    for name, value in limits.items():
        if not value > 0:
            raise InvalidInput(f"{name} must be positive, got {value:g}")


def check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    """Raise `InvalidInput` unless batch sizes are ascending whole numbers from 1 on."""
    ascending = all(a < b for a, b in pairwise(sizes))
    if not sizes or sizes[0] < 1 or not ascending:
        raise InvalidInput(f"{name} must be ascending whole numbers from 1 on, got {sizes}")


def energy_text(limit_j: float) -> str:
    """A bound of energy in words; nothing if there is none."""
    return "" if math.isinf(limit_j) else f" and {limit_j:g} J"


def guard_text(guard: bool) -> str:
    """The guard in words."""
    return " with a minibatch running" if guard else ""
