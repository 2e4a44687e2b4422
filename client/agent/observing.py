"""Who is told of turns: the latencies of late, and whoever exports metrics."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np

_KEPT = 1024  # latencies of a job: enough for a 99th percentile


class TurnObserver(Protocol):
    """Told of every turn and refusal, on whatever thread; must be quick."""

    def ran(self, job: str, size: int, ran_s: float, latencies_s: Sequence[float]) -> None:
        """A turn has ended, and these requests were answered."""

    def refused(self, job: str, reason: str) -> None:
        """A request was refused."""


class NoObserver:
    """Where nobody wants to know."""

    def ran(self, job: str, size: int, ran_s: float, latencies_s: Sequence[float]) -> None:
        """Nothing."""

    def refused(self, job: str, reason: str) -> None:
        """Nothing."""


class RecentLatencies:
    """The last latencies of each job, and their percentiles."""

    def __init__(self) -> None:
        self._latencies_s: dict[str, deque[float]] = {}

    def add(self, job: str, latencies_s: Sequence[float]) -> None:
        """Some requests were answered."""
        if latencies_s:
            self._latencies_s.setdefault(job, deque(maxlen=_KEPT)).extend(latencies_s)

    def forget(self, job: str) -> None:
        """The job is gone."""
        self._latencies_s.pop(job, None)

    def percentiles_s(self, job: str, *percentiles: float) -> tuple[float, ...]:
        """Percentiles of a job's latencies; NaN where there are none."""
        recent = list(self._latencies_s.get(job, ()))
        if not recent:
            return (math.nan,) * len(percentiles)
        return tuple(float(p) for p in np.percentile(recent, percentiles))
