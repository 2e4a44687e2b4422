"""The engine: one thread that has the device, and runs whose turn the interleaver says it is.

Any thread may bring requests; the policy is asked and told under one lock, and nothing that takes
long is done while it is held. A turn of another process has the device like any other: its step
waits until it is released.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from powerctl.device import Device
from powerctl.errors import InvalidInput
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import (
    RefusedRequest,
    RunBatch,
    RunTraining,
    ServiceSpec,
    TrainingJob,
    Turn,
    Wait,
)
from powerctl.modes import PowerMode
from powerctl.quantities import spoken
from wattfed.client.agent.engine_jobs import (
    FAILED,
    FULL,
    LATE,
    STOPPING,
    EngineJob,
    Ticket,
    TicketAnswer,
    TicketRefusal,
    TurnFailure,
)
from wattfed.client.agent.engine_state import EngineState, JobState, TurnObserver

_LOG = logging.getLogger("wattfed.agent")
_MARGIN_S = 0.002  # of a budget: to wake up in, and to get the answer out
_MARGIN_SHARE = 0.1  # of a budget, at the most: a short one is not all margin
_KEPT_LATENCIES = 1024  # latencies of a job: enough for a 99th percentile
_KEPT_LEAVERS = 8  # jobs that have gone, of which it still tells
_LONGEST_WAIT_S = 3600.0  # a lock's time-out must not overflow


@dataclass
class _Job:
    """A job of the engine, with its plan and the latencies of its last requests."""

    job: EngineJob
    service: ServiceSpec | None = None  # None: it trains
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))
    leaves: bool = False  # when its turn is over


class TurnEngine:
    """Runs turns on a device, one at a time.

    Parameters
    ----------
    device : Device
        With the real clock. While the engine runs, only its thread executes and applies modes.
    policy : Interleaver
        Decides; nobody else may touch it.
    observer : TurnObserver, optional
        Told of turns and refusals.

    Attributes
    ----------
    failed : Future
        Has an exception once the engine's thread has died of a defect.
    """

    def __init__(
        self, device: Device, policy: Interleaver, observer: TurnObserver | None = None
    ) -> None:
        self.device = device
        self._policy = policy
        self._observer = observer or TurnObserver()
        self._wake = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._left: deque[JobState] = deque(maxlen=_KEPT_LEAVERS)
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running = ""
        self._current: tuple[Ticket, ...] = ()
        self._idle = False  # the device thread waits, and whoever brings something may decide
        self._handed: Callable[[], None] | None = None  # a turn decided for it meanwhile
        self._waiting: dict[Ticket, None] = {}
        self._stopping = ""
        self.failed: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)

    # Life

    def start(self) -> None:
        """Begin to run turns on the device thread."""
        self._thread.start()

    def stop(self, message: str, timeout_s: float | None = None) -> bool:
        """End after the running turn, and refuse what waits; False if that turn has not ended.

        The device is left as it is.
        """
        self._refuse_all(message)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _refuse_all(self, message: str) -> None:
        """What waits, and from now on what comes."""
        with self._wake:
            self._stopping = message or "the agent stops"
            left, errands = list(self._waiting), list(self._errands)
            self._waiting.clear()
            self._errands.clear()
            for ticket in left:
                self._policy.withdraw(ticket.job, ticket)
            self._wake.notify_all()
        for ticket in left:
            self._refuse(ticket, STOPPING, self._stopping)
        for _, future in errands:
            future.cancel()

    # Jobs

    def add_service(self, job: EngineJob, service: ServiceSpec) -> None:
        """Take in an inference service; raises `InvalidInput` if its name is taken."""
        with self._wake:
            self._policy.add_service(service)
            self._jobs[service.name] = _Job(job, service)

    def add_training(self, job: EngineJob, training: TrainingJob) -> None:
        """Take in a training job, which runs when `want` says so."""
        with self._wake:
            self._policy.add_training(training)
            self._jobs[training.name] = _Job(job)

    def remove(self, name: str) -> None:
        """Forget a job, after its turn if it has one; what waits for it is refused."""
        with self._wake:
            if self._running == name:
                self._jobs[name].leaves = True
                return
            refused = self._forget(name)
        self._refuse_each(refused)

    def want(self, name: str, wanted: bool = True) -> None:
        """Whether a training job has a minibatch to run."""
        with self._wake:
            self._policy.want(name, wanted)
            self._advance()

    # Requests

    def submit(self, ticket: Ticket) -> None:
        """Queue a request; `ticket.settle` is told what becomes of it."""
        with self._wake:
            reason, message = STOPPING, self._stopping
            if not self._stopping:
                now_s = ticket.arrived_s = self.device.now()
                margin_s = min(_MARGIN_S, _MARGIN_SHARE * ticket.budget_s)
                deadline_s = now_s + ticket.budget_s - margin_s
                refused = self._policy.arrive(ticket.job, ticket, now_s, deadline_s)
                if refused is None:
                    self._waiting[ticket] = None
                    self._advance()
                    return
                reason, message = refused.reason, _why(refused.reason, ticket)
        self._refuse(ticket, reason, message)

    def withdraw(self, ticket: Ticket) -> bool:
        """Nobody waits for a request any more; False if it does not wait: it runs, or is over."""
        with self._wake:
            if ticket not in self._waiting:
                return False
            del self._waiting[ticket]
            return self._policy.withdraw(ticket.job, ticket)

    def expire(self, ticket: Ticket) -> None:
        """Refuse a request as late, if it still waits: no turn has ended for so long."""
        if self.withdraw(ticket):
            self._refuse(ticket, LATE, _why(LATE, ticket))

    # Plans

    def between_turns(self, errand: Callable[[], Any]) -> Future[Any]:
        """Have something done by the device thread while no turn runs, before the next one."""
        future: Future[Any] = Future()
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                future.cancel()
            else:
                self._errands.append((errand, future))
                self._wake.notify()
        return future

    def change(
        self,
        mode: PowerMode,
        services: Iterable[ServiceSpec] = (),
        training: Iterable[TrainingJob] = (),
    ) -> Future[Any]:
        """Apply a mode between turns, with the times and batch sizes that are planned in it."""
        return self._changed(lambda: self.device.apply(mode), services, training)

    def restore(self, services: Iterable[ServiceSpec] = ()) -> Future[Any]:
        """Bring back the mode found at opening, between turns, with the times planned in it."""
        return self._changed(self.device.restore, services, ())

    def _changed(
        self,
        change: Callable[[], None],
        services: Iterable[ServiceSpec],
        training: Iterable[TrainingJob],
    ) -> Future[Any]:
        services, training = tuple(services), tuple(training)

        def errand() -> None:
            change()
            with self._wake:  # holders may have gone meanwhile
                there = [service for service in services if service.name in self._jobs]
                self._policy.replan(there, [job for job in training if job.name in self._jobs])
                for service in there:
                    self._jobs[service.name].service = service

        return self.between_turns(errand)

    def service(self, name: str) -> ServiceSpec:
        """The plan of a service: its budget, batch size and times."""
        with self._wake:
            service = self._jobs[name].service
        if service is None:
            raise InvalidInput(f"{name} trains, and serves no requests")
        return service

    def arrived(self, name: str) -> int:
        """Requests of a service that have come so far."""
        with self._wake:
            return self._policy.accounts[name].arrived

    def expected(self) -> tuple[list[ServiceSpec], list[TrainingJob]]:
        """All services and training jobs as they are planned, with the times learned so far."""
        with self._wake:
            services, training = [], []
            for name, there in self._jobs.items():
                times = self._policy.times(name)
                if there.service is None:
                    training.append(TrainingJob(name, times.expected_s()))
                else:
                    time_s = {size: times.expected_s(size) for size in there.service.time_s}
                    services.append(replace(there.service, time_s=time_s))
            return services, training

    def state(self) -> EngineState:
        """The state of every job, and what runs, at one moment."""
        with self._wake:
            jobs = [self._job_state(name) for name in self._jobs]
            return EngineState(self._running, self._policy.load, tuple(jobs), tuple(self._left))

    def _job_state(self, name: str) -> JobState:
        service, recent_s = self._jobs[name].service, self._jobs[name].latencies_s
        p50_s, p99_s = np.percentile(recent_s, (50, 99)) if recent_s else (math.nan, math.nan)
        return JobState(
            name=name,
            is_training=service is None,
            queued=0 if service is None else self._policy.queued(name),
            account=replace(self._policy.accounts[name]),
            batch_size=1 if service is None else service.batch_size,
            latency_s=math.inf if service is None else service.latency_s,
            latency_p50_s=float(p50_s),
            latency_p99_s=float(p99_s),
            rate_hz=0.0 if service is None else self._policy.rate_hz(name),
        )

    # The device thread

    def _work(self) -> None:
        try:
            while True:
                with self._wake:
                    task = self._next()
                if task is None:
                    return
                task()
        except BaseException as error:  # a defect: without this thread nobody gets a turn
            _LOG.critical("the device thread has failed", exc_info=error)
            self._refuse_all("the agent's device thread has failed")
            for ticket in self._current:
                self._refuse(ticket, STOPPING, self._stopping)
            self.failed.set_exception(error)

    def _next(self) -> Callable[[], None] | None:
        """What to do next; waits until there is something. None: the end."""
        while not self._stopping:
            if self._errands:
                errand, future = self._errands.popleft()
                return lambda: _do(errand, future)
            turn = self._decide()
            if not isinstance(turn, Wait):
                return self._begin(turn)
            wait_s = turn.until_s - self.device.now()
            if wait_s > 0:
                self._idle = True
                self._wake.wait(min(wait_s, _LONGEST_WAIT_S))
                self._idle = False
            if self._handed is not None:
                task, self._handed = self._handed, None
                return task
        return None

    def _advance(self) -> None:
        """Something has come: decide here and now if the device thread waits.

        It saves a holder the time in which that thread wakes up; it finds the turn decided.
        """
        if self._idle and not self._errands:
            turn = self._decide()
            if not isinstance(turn, Wait):
                self._idle = False  # before the job is told, which may say that it wants no more
                self._handed = self._begin(turn)
        self._wake.notify()

    def _decide(self) -> Turn:
        decision = self._policy.decide(self.device.now())
        self._refuse_each(decision.refused)
        return decision.turn

    def _begin(self, turn: RunBatch | RunTraining) -> Callable[[], None]:
        tickets: tuple[Ticket, ...] = ()
        if isinstance(turn, RunTraining):
            name = turn.job
        else:
            name, tickets = turn.service, cast("tuple[Ticket, ...]", turn.requests)
        self._running, self._current = name, tickets
        for ticket in tickets:
            self._waiting.pop(ticket, None)
        self._jobs[name].job.begin(tickets)
        return lambda: self._run(turn, name, tickets)

    def _run(self, turn: RunBatch | RunTraining, name: str, tickets: Sequence[Ticket]) -> None:
        there, failure = self._jobs[name], None
        values: list[Any] = []
        job, size = there.job, max(len(tickets), 1)
        start_s = self.device.now()
        try:
            self.device.execute(job.workload(size), lambda: values.extend(job.run(tickets)))
        except Exception as error:  # the batch has failed; the agent goes on
            failure, values = error, [error] * len(tickets)
            if not isinstance(error, TurnFailure):  # of which others tell
                _LOG.warning("a turn of %s failed", name, exc_info=error)
        end_s = self.device.now()
        job.ended()
        failed = [isinstance(value, Exception) for value in values]
        latencies_s = [
            end_s - ticket.arrived_s for ticket, no in zip(tickets, failed, strict=True) if not no
        ]
        self._end(turn, name, failure is None, end_s, sum(failed))
        with self._wake:
            there.latencies_s.extend(latencies_s)
        for ticket, value in zip(tickets, values, strict=True):
            if isinstance(value, Exception):
                reason = value.reason if isinstance(value, TurnFailure) else FAILED
                self._refuse(ticket, reason, str(value) or type(value).__name__)
            else:
                waited_s = start_s - ticket.arrived_s
                ticket.settle(TicketAnswer(value, len(tickets), waited_s, end_s - start_s))
        if failure is None:
            self._observer.ran(name, size, end_s - start_s, latencies_s)

    def _end(
        self, turn: RunBatch | RunTraining, name: str, ran: bool, end_s: float, failed: int
    ) -> None:
        """Tell the policy that a turn is over, and carry out a removal that waited for it."""
        refused: tuple[RefusedRequest, ...] = ()
        with self._wake:
            if ran:
                self._policy.finished(turn, end_s, failed=failed)
            else:
                self._policy.abandon(turn, end_s)
            self._running, self._current = "", ()
            if self._jobs[name].leaves:
                refused = self._forget(name)
        self._refuse_each(refused)

    def _forget(self, name: str) -> tuple[RefusedRequest, ...]:
        if name in self._jobs:
            self._left.append(self._job_state(name))
        refused = self._policy.remove(name)
        self._jobs.pop(name, None)
        return refused

    def _refuse_each(self, refused: Iterable[RefusedRequest]) -> None:
        for _, ticket, reason in refused:
            assert isinstance(ticket, Ticket)
            self._waiting.pop(ticket, None)
            self._refuse(ticket, reason, _why(reason, ticket))

    def _refuse(self, ticket: Ticket, reason: str, message: str) -> None:
        ticket.settle(TicketRefusal(reason, message))
        self._observer.refused(ticket.job, reason)


def _why(reason: str, ticket: Ticket) -> str:
    if reason == LATE:
        return f"{ticket.job}: no turn within {spoken(ticket.budget_s, 's')}"
    if reason == FULL:
        return f"{ticket.job}: the queue is full; send less, or later"
    return f"{ticket.job}: {reason}"


def _do(errand: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(errand())
    except Exception as error:  # whoever asked for it is told
        future.set_exception(error)
