"""Managed interleaving executed on virtual time: the agent's policy against a trace of arrivals."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from powerctl.errors import InvalidInput
from powerctl.fulcrum.durations import BatchTimes
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import RefusedRequest, Request, RunBatch, RunTraining, Wait


class Execution:
    """How long minibatches really take: a time by batch size, and its variation.

    Parameters
    ----------
    time_s : mapping of str to mapping of int to float
        Mean seconds by batch size, of each service and each training job (size 1).
    variation : float
        Coefficient of variation: times are lognormal around their mean. 0 for exact times.
    rng : Generator, optional
        The source of chance; needed with a variation.
    """

    def __init__(
        self,
        time_s: Mapping[str, Mapping[int, float]],
        variation: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        if not variation >= 0 or (variation > 0 and rng is None):
            raise InvalidInput(f"a variation of {variation:g} needs to be positive, and an rng")
        self.mean_s = {job: BatchTimes(times) for job, times in time_s.items()}
        self._sigma = math.sqrt(math.log1p(variation**2))
        self._factors = _lognormal(self._sigma, rng)

    def __call__(self, job: str, size: int) -> float:
        """Seconds of the next minibatch of a job."""
        return self.mean_s[job](size) * next(self._factors)


def _lognormal(sigma: float, rng: Generator | None) -> Iterator[float]:
    """Factors of mean 1."""
    while rng is None or sigma == 0:
        yield 1.0
    while True:
        yield from np.exp(sigma * rng.standard_normal(1024) - sigma**2 / 2).tolist()


@dataclass(frozen=True)
class ServiceRecord:
    """What a service's requests met with.

    Attributes
    ----------
    requests, answered, within : int
        That came; that were answered; that were answered within their budget.
    refused : int
        As late or because the queue was full.
    latency_s : tuple of float
        Of those answered, in the order of their answers.
    batches : int
        That ran.
    busy_s : float
        For how long, of the record's duration.
    """

    requests: int
    answered: int
    within: int
    refused: int
    latency_s: tuple[float, ...]
    batches: int
    busy_s: float

    @property
    def within_budget_pct(self) -> float:
        """Of all requests, those answered within their budget; 100 if none came."""
        return 100 * self.within / self.requests if self.requests else 100.0

    @property
    def missed(self) -> int:
        """Requests answered late or refused."""
        return self.requests - self.within

    def latency_pct_s(self, percentile: float) -> float:
        """A percentile of the latency (100: the longest); NaN if nothing was answered."""
        return float(np.percentile(self.latency_s, percentile)) if self.latency_s else math.nan


@dataclass(frozen=True)
class TrainingRecord:
    """What a training job had of the device.

    Attributes
    ----------
    minibatches : int
        That ran.
    busy_s : float
        For how long.
    rate_hz, alone_hz : float
        Minibatches in a second; and what it would be with the device for itself.
    held : int
        Decisions at which it was wanted and not safe.
    """

    minibatches: int
    busy_s: float
    rate_hz: float
    alone_hz: float
    held: int


@dataclass(frozen=True)
class Record:
    """An execution: by service, by training job, and of the device.

    Attributes
    ----------
    services : dict of str to ServiceRecord
    training : dict of str to TrainingRecord
    duration_s : float
        Virtual seconds that training was wanted for: as asked, and to the end of the turn then.
    """

    services: dict[str, ServiceRecord]
    training: dict[str, TrainingRecord]
    duration_s: float

    @property
    def inference_share(self) -> float:
        """Of the time, what inference had."""
        return sum(s.busy_s for s in self.services.values()) / self.duration_s

    @property
    def training_share(self) -> float:
        """Of the time, what training had."""
        return sum(t.busy_s for t in self.training.values()) / self.duration_s

    @property
    def utilisation(self) -> float:
        """Of the time, what something ran in."""
        return self.inference_share + self.training_share

    @property
    def share_of_left(self) -> float:
        """Of the time that inference left, what training had; NaN if it left none."""
        left = 1 - self.inference_share
        return self.training_share / left if left > 0 else math.nan


def replay(
    interleaver: Interleaver,
    arrivals: Mapping[str, Iterable[float]],
    execution: Execution,
    duration_s: float,
) -> Record:
    """Execute on virtual time.

    Parameters
    ----------
    interleaver : Interleaver
        The policy, fresh; training jobs that are wanted run until the duration is over.
    arrivals : mapping of str to iterable of float
        Ascending arrival times in seconds, by service. Requests are numbered in that order.
    execution : Execution
        What minibatches take.
    duration_s : float
        When training ends. What has arrived is then still answered.

    Raises
    ------
    InvalidInput
        For a duration that is not positive.
    """
    if not duration_s > 0:
        raise InvalidInput(f"a replay needs a positive duration, got {duration_s:g} s")
    return _Replay(interleaver, arrivals, execution, duration_s).run()


class _Replay:
    """The state of one execution."""

    def __init__(
        self,
        interleaver: Interleaver,
        arrivals: Mapping[str, Iterable[float]],
        execution: Execution,
        duration_s: float,
    ) -> None:
        self._policy = interleaver
        self._execution = execution
        self._duration_s = duration_s
        self._trace = heapq.merge(*(_numbered(name, at) for name, at in arrivals.items()))
        self._next = next(self._trace, None)
        self._arrived_s: dict[tuple[str, Request], float] = {}
        self._latency_s: dict[str, list[float]] = {name: [] for name in arrivals}
        self._busy_s: dict[str, float] = {}
        self._end_s = duration_s
        self._now_s = 0.0

    def run(self) -> Record:
        """Turn after turn until nothing is left to do."""
        while True:
            if self._now_s >= self._duration_s and not self._busy_s:
                self._stop_training()
            decision = self._policy.decide(self._now_s)
            self._drop(decision.refused)
            turn = decision.turn
            if isinstance(turn, Wait):
                if not self._wait(turn.until_s):
                    self._now_s = max(self._now_s, self._duration_s)
                    if self._busy_s:
                        return self._record()
            else:
                self._execute(turn)

    def _stop_training(self) -> None:
        """The duration is over: what is left is answered, and no longer counts as time."""
        for job in self._policy.training_names:
            self._policy.want(job, False)
        self._busy_s = {name: account.busy_s for name, account in self._policy.accounts.items()}
        self._end_s = max(self._now_s, self._duration_s)

    def _execute(self, turn: RunBatch | RunTraining) -> None:
        inference = isinstance(turn, RunBatch)
        job = turn.service if isinstance(turn, RunBatch) else turn.job
        requests = turn.requests if isinstance(turn, RunBatch) else ()
        took_s = self._execution(job, len(requests) if inference else 1)
        end_s = self._now_s + took_s
        self._arrive_until(end_s)
        self._now_s = end_s
        for request in requests:
            self._latency_s[job].append(end_s - self._arrived_s.pop((job, request)))
        self._policy.finished(turn, end_s, took_s)

    def _wait(self, until_s: float) -> bool:
        """Let time pass to the next event; False if there is none."""
        next_s = math.inf if self._next is None else self._next[0]
        event_s = min(until_s, next_s)
        if math.isinf(event_s):
            return False
        self._now_s = max(self._now_s, event_s)
        self._arrive_until(self._now_s)
        return True

    def _arrive_until(self, end_s: float) -> None:
        while self._next is not None and self._next[0] <= end_s:
            at_s, service, number = self._next
            self._arrived_s[service, number] = at_s
            refused = self._policy.arrive(service, number, at_s)
            self._drop(() if refused is None else (refused,))
            self._next = next(self._trace, None)

    def _drop(self, refused: Iterable[RefusedRequest]) -> None:
        for one in refused:
            del self._arrived_s[one.service, one.request]

    def _record(self) -> Record:
        accounts = self._policy.accounts
        services = {
            name: ServiceRecord(
                requests=accounts[name].arrived,
                answered=accounts[name].answered,
                within=accounts[name].within,
                refused=accounts[name].refused,
                latency_s=tuple(latency_s),
                batches=accounts[name].turns,
                busy_s=self._busy_s[name],
            )
            for name, latency_s in self._latency_s.items()
        }
        training = {
            name: TrainingRecord(
                minibatches=accounts[name].turns,
                busy_s=self._busy_s[name],
                rate_hz=accounts[name].turns / self._end_s,
                alone_hz=1 / self._execution.mean_s[name](1),
                held=accounts[name].held,
            )
            for name in self._policy.training_names
        }
        return Record(services, training, self._end_s)


def _numbered(service: str, arrivals: Iterable[float]) -> Iterator[tuple[float, str, int]]:
    return ((at_s, service, number) for number, at_s in enumerate(arrivals))
