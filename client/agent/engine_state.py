"""What the engine tells of itself: the state of every job at one moment, and each turn's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from powerctl.fulcrum.turns import Account


@dataclass(frozen=True)
class JobState:
    """A job at one moment: its plan, its queue and what became of its requests.

    `latency_s` is its budget, infinite for training, `batch_size` the planned one, and `rate_hz`
    that of arrivals, as observed.
    """

    name: str
    is_training: bool
    queued: int
    account: Account
    batch_size: int
    latency_s: float
    latency_p50_s: float
    latency_p99_s: float
    rate_hz: float


@dataclass(frozen=True)
class EngineState:
    """What runs (empty if nothing does), the load by inference, every job, and those that left."""

    running: str
    load: float
    jobs: tuple[JobState, ...]
    left: tuple[JobState, ...] = ()


class TurnObserver:
    """Told of every turn and refusal, on whatever thread; must be quick. This one ignores them."""

    def ran(self, job: str, size: int, ran_s: float, latencies_s: Sequence[float]) -> None:
        """Hear that a turn has ended, and what latencies the requests had that it answered."""

    def refused(self, job: str, reason: str) -> None:
        """Hear that a request was refused."""
