"""Turns: what the interleaver is told of services and training, what it answers; and accounts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from powerctl.errors import InvalidInput

Request = Hashable
LATE_POLICIES = ("reject", "serve")


@dataclass(frozen=True)
class ServiceSpec:
    """What the interleaver is told of an inference service.

    Parameters
    ----------
    name : str
        How it is called.
    latency_s : float
        Budget of a request, from arrival to answer; infinite for one that can wait for ever.
    batch_size : int
        The planned batch: that many queued requests are dispatched at once.
    time_s : mapping of int to float
        Expected seconds by batch size. The largest size is the largest batch there may be; any
        size below it may be dispatched too.
    rate_hz : float
        Expected arrivals in a second; 0 if unknown. Corrected on line.
    late : str
        ``"reject"``: a request that cannot be met any more is refused. ``"serve"``: it is
        answered late, when that endangers no other.
    capacity : int
        Most requests queued; one more is refused.
    weight : float
        How many measurements `time_s` is worth; below 1 for a guess.

    Raises
    ------
    InvalidInput
        For a value outside its range.
    """

    name: str
    latency_s: float
    batch_size: int
    time_s: Mapping[int, float] = field(hash=False)
    rate_hz: float = 0.0
    late: str = "reject"
    capacity: int = 1024
    weight: float = 8.0

    def __post_init__(self) -> None:
        if not self.latency_s > 0:
            raise InvalidInput(f"{self.name}: latency_s must be positive, got {self.latency_s:g}")
        if not self.time_s or not 1 <= self.batch_size <= max(self.time_s):
            raise InvalidInput(
                f"{self.name}: the planned batch must be from 1 to the largest size with a known "
                f"time ({max(self.time_s, default=0)}), got {self.batch_size}"
            )
        if not 0 <= self.rate_hz < math.inf or self.capacity < 1:
            raise InvalidInput(
                f"{self.name}: rate_hz is not negative and capacity at least 1, "
                f"got {self.rate_hz:g} and {self.capacity}"
            )
        if self.late not in LATE_POLICIES:
            names = " or ".join(LATE_POLICIES)
            raise InvalidInput(f"{self.name}: late is {names}, not {self.late!r}")


@dataclass(frozen=True)
class TrainingJob:
    """A job that takes whatever time is left, one minibatch a turn.

    Parameters
    ----------
    name : str
        How it is called.
    time_s : float
        Expected seconds of a minibatch.
    weight : float
        How many measurements `time_s` is worth; below 1 for a guess.
    """

    name: str
    time_s: float
    weight: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.time_s < math.inf:
            raise InvalidInput(f"{self.name}: time_s must be positive, got {self.time_s:g}")


@dataclass(frozen=True)
class RunBatch:
    """Run one inference batch of these requests, the most urgent first."""

    service: str
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class RunTraining:
    """Run one minibatch of a training job."""

    job: str


@dataclass(frozen=True)
class Wait:
    """Nothing to run until then, or until something arrives; infinite if only that can help."""

    until_s: float


Turn = RunBatch | RunTraining | Wait


class RefusedRequest(NamedTuple):
    """A request that will not be answered.

    Its reason: ``"late"`` (cannot be met), ``"full"`` (the queue) or ``"removed"`` (the service).
    """

    service: str
    request: Request
    reason: str


class Decision(NamedTuple):
    """Whose turn it is, and the requests given up at that moment."""

    turn: Turn
    refused: tuple[RefusedRequest, ...] = ()


@dataclass
class Account:
    """What became of a service's requests, or of a training job's wish to run.

    At any time, `arrived` is `settled` and what is queued or runs. For training, `arrived` and the
    refusals stay 0 and `answered` counts minibatches.

    Attributes
    ----------
    arrived, answered, within : int
        Requests that came; that were answered; that were answered by their deadline.
    rejected_late, rejected_full : int
        Refused, as they could not be met or found the queue full.
    withdrawn : int
        Taken back, or lost with a turn that was abandoned.
    turns, abandoned : int
        That ended well, and that did not.
    busy_s : float
        Device time of both.
    held : int
        Decisions at which training was wanted and not safe.
    """

    arrived: int = 0
    answered: int = 0
    within: int = 0
    rejected_late: int = 0
    rejected_full: int = 0
    withdrawn: int = 0
    turns: int = 0
    abandoned: int = 0
    busy_s: float = 0.0
    held: int = 0

    @property
    def refused(self) -> int:
        """Requests refused, for whatever reason."""
        return self.rejected_late + self.rejected_full

    @property
    def settled(self) -> int:
        """Requests of which nothing is to come any more."""
        return self.answered + self.refused + self.withdrawn
