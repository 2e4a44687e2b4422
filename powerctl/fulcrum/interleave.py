"""Managed interleaving: whose minibatch runs next, so that requests are met and training goes on.

A pure state machine. It has no clock and no thread: it is told what arrives and what has ended,
with the time, and asked for the next turn whenever the device is free. The agent drives it with
real time, the simulation with virtual time.

The policy, in the order in which `Interleaver.decide` tries it:

1. A request that not even a batch of one, begun now, would meet is given up.
2. A full batch runs if it is *safe*: the planned size, or more where more has queued and that takes
   no longer per request; of several services the one with the earliest deadline.
3. A training minibatch runs if it is safe; before it, a partial batch that no other request is
   expected to join within its budget: it would wait for nothing.
4. With nothing full and training held back, a partial batch runs rather than nothing, so that
   training is safe again; without training, once the latest start of the queue has come, or at
   once if it is not expected to fill by then.
5. Requests that are late already run, where they are answered late.
6. If a batch is full or due and none is safe, the one runs that saves most of what is queued.
7. Else wait: for an arrival, or until the latest start; not long if training is held back, as it
   becomes safe when none comes.

A turn from now to its end is safe if every service's queue, and what may arrive during the turn,
can still be met when it ends, in batches run by deadline. All times are the safety quantile of
what was learned. Arrivals are as many and as early as the observed rate and dispersion let them be
within `reserve_deviations` standard deviations, and at least one, at the moment the turn begins.

References
----------
Fulcrum (arXiv 2509.20205), managed interleaving: one workload at a time, and turns change only
between minibatches. The guard against a running minibatch, and all that deals with random arrivals
and times, is our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.durations import QUANTILE, SPREAD, Backoff, LearnedTimes
from powerctl.fulcrum.queueing import Queued, ServiceQueue, TrainingJobs, exceeds
from powerctl.fulcrum.schedulability import Schedulability, save_most
from powerctl.fulcrum.turns import (
    Account,
    Decision,
    RefusedRequest,
    Request,
    RunBatch,
    RunTraining,
    ServiceSpec,
    TrainingJob,
    Turn,
    Wait,
)

_NOW_S = 1e-9  # a latest start so near has come
_AGAIN_S = 0.1  # training that is held is looked at again: if no request comes, it becomes safe


class _Running(NamedTuple):
    """The turn that has the device."""

    turn: RunBatch | RunTraining
    job: str
    batch: tuple[Queued, ...]
    start_s: float
    learn: bool = True  # False: a plan for another mode has come meanwhile

    @property
    def size(self) -> int:
        return max(len(self.batch), 1)


class Interleaver:
    """Decides whose turn it is on a device that runs one minibatch at a time.

    Parameters
    ----------
    services : iterable of ServiceSpec
        The inference services. Another process that asks for single turns with a deadline is a
        service of batch size 1.
    training : iterable of TrainingJob
        Jobs that fill the time left; of several, the one that has had least time runs first. None
        runs before `want` says so.
    quantile : float
        Safety quantile of the times that decisions count on.
    spread : float
        Standard deviation of log time assumed to begin with; 0 if the given times are exact.
    reserve_deviations : float
        Standard deviations of the number of arrivals to provide for during a turn; infinite
        for the largest batch at once.

    Attributes
    ----------
    accounts : dict of str to Account
        By service and training job.
    """

    def __init__(
        self,
        services: Iterable[ServiceSpec] = (),
        training: Iterable[TrainingJob] = (),
        *,
        quantile: float = QUANTILE,
        spread: float = SPREAD,
        reserve_deviations: float = 2.0,
    ) -> None:
        if not reserve_deviations >= 0:
            raise InvalidInput(f"reserve_deviations is not negative, got {reserve_deviations:g}")
        self._quantile = quantile
        self._spread = spread
        self._queues: dict[str, ServiceQueue] = {}
        self._schedulability = Schedulability(self._queues, reserve_deviations)
        self._jobs = TrainingJobs()
        self._running: _Running | None = None
        self._backoff: dict[str, Backoff] = {}
        self.accounts: dict[str, Account] = {}
        for service in services:
            self.add_service(service)
        for job in training:
            self.add_training(job)

    # What there is

    def add_service(self, service: ServiceSpec) -> None:
        """Take in a service; raises `InvalidInput` if the name is taken."""
        times = self._new_times(service.time_s, service.weight)
        self._claim(service.name)
        self._queues[service.name] = ServiceQueue(service, times)

    def add_training(self, job: TrainingJob) -> None:
        """Take in a training job; raises `InvalidInput` if the name is taken."""
        times = self._new_times({1: job.time_s}, job.weight)
        self._claim(job.name)
        self._jobs.add(job.name, times)

    def remove(self, name: str) -> tuple[RefusedRequest, ...]:
        """Forget a service or training job, its account too.

        Returns
        -------
        tuple of RefusedRequest
            Its queued requests, as ``"removed"``.

        Raises
        ------
        UnknownName
            If there is no such job.
        InvalidInput
            If it has the device: its turn is to be finished or abandoned first.
        """
        if name not in self.accounts:
            raise UnknownName("job", name, self.accounts)
        if self._running is not None and self._running.job == name:
            raise InvalidInput(f"{name} has the device: finish or abandon its turn first")
        del self.accounts[name], self._backoff[name]
        self._jobs.remove(name)
        left = self._queues.pop(name, None)
        waiting = [] if left is None else left.queue + left.late
        return tuple(RefusedRequest(name, queued.request, "removed") for queued in waiting)

    def replan(
        self, services: Iterable[ServiceSpec] = (), training: Iterable[TrainingJob] = ()
    ) -> None:
        """Expect other times, batch sizes and budgets: a new power mode, or a new plan.

        Queues with their deadlines and accounts stay, and observed arrivals where the planned rate
        is the same; what was learned of the times goes, and a turn that runs teaches nothing.
        """
        for service in services:
            self._queue(service.name).replan(service)
            self._unlearn(service.name)
        for job in training:
            self._jobs.times(job.name).replan({1: job.time_s})
            self._unlearn(job.name)

    # What happens

    def arrive(
        self, service: str, request: Request, now_s: float, deadline_s: float | None = None
    ) -> RefusedRequest | None:
        """Take note of a request that has come, or refuse it.

        Parameters
        ----------
        service : str
            Of which service.
        request : hashable
            Names it in decisions.
        now_s : float
            The present.
        deadline_s : float, optional
            By when it is to be answered; the service's budget from now if not given.

        Returns
        -------
        RefusedRequest or None
            ``"full"`` if the queue is at capacity; ``"late"`` if it could not be met even if it
            ran next and alone (and the service refuses late ones). None if it was queued.
        """
        queue, account = self._queue(service), self.accounts[service]
        if deadline_s is None:
            deadline_s = now_s + queue.service.latency_s
        queue.check(request, deadline_s)
        queue.arrivals.arrived(now_s)
        queue.joining.arrived(now_s, self._is_there(queue))
        account.arrived += 1
        if not queue.has_room:
            account.rejected_full += 1
            return RefusedRequest(service, request, "full")
        if queue.service.late == "reject":
            end_s = self._free_s(now_s) + queue.times.expected_s(1)
            if exceeds(end_s, deadline_s) and not self._reconsider(service, now_s):
                account.rejected_late += 1
                return RefusedRequest(service, request, "late")
        queue.add(request, deadline_s)
        return None

    def withdraw(self, service: str, request: Request) -> bool:
        """Nobody waits for a queued request any more; False if it is not queued (any more)."""
        removed = self._queue(service).remove(request)
        self.accounts[service].withdrawn += removed
        return removed

    def want(self, job: str, wanted: bool = True) -> None:
        """Whether a training job has a minibatch to run.

        It holds until it is taken back. A job of another process, which asks for one turn at a
        time, is wanted when it asks and no longer when its turn has begun.
        """
        self._jobs.want(job, wanted)

    def finished(
        self, turn: Turn, now_s: float, time_s: float | None = None, failed: int = 0
    ) -> None:
        """Take note that a turn has ended, and learn from what it took.

        Parameters
        ----------
        turn : RunBatch or RunTraining
            As it was decided.
        now_s : float
            The present.
        time_s : float, optional
            What the minibatch took, to learn from; since the decision if not given.
        failed : int, optional
            Requests of it that got no answer, the rest having been run one by one: they count as
            withdrawn, and nothing is learned.

        Raises
        ------
        InvalidInput
            If it is not this turn that runs.
        """
        running = self._end(turn)
        took_s = now_s - running.start_s if time_s is None else time_s
        account = self._charge(running, took_s)
        account.turns += 1
        account.answered += running.size - failed
        account.withdrawn += failed
        within = sum(not exceeds(now_s, q.deadline_s) for q in running.batch)
        account.within += min(within, running.size - failed)
        planned_s = self.times(running.job).planned_safe_s(running.size)
        self._backoff[running.job].ran(now_s, as_planned=took_s <= planned_s)
        if running.job in self._queues:
            queue = self._queues[running.job]
            queue.joining.seen(now_s, self._is_there(queue))
        if running.learn and not failed:
            self.times(running.job).observe(running.size, took_s)

    def abandon(self, turn: Turn, now_s: float) -> tuple[Request, ...]:
        """A turn's holder has died: the device is free, nothing is learned.

        Returns
        -------
        tuple
            The requests that nobody will answer now. They count as withdrawn.

        Raises
        ------
        InvalidInput
            If it is not this turn that runs.
        """
        running = self._end(turn)
        account = self._charge(running, now_s - running.start_s)
        account.abandoned += 1
        account.withdrawn += len(running.batch)
        return tuple(queued.request for queued in running.batch)

    # What to do

    def decide(self, now_s: float) -> Decision:
        """Whose turn it is; the turn runs from now on, until `finished` or `abandon`.

        Raises
        ------
        InvalidInput
            If a turn runs already.
        """
        if self._running is not None:
            raise InvalidInput(f"{self._running.job} has the device: its turn has not finished")
        refused = tuple(self._give_up(now_s))
        for queue in self._queues.values():
            queue.arrivals.seen(now_s)
            queue.joining.seen(now_s, self._is_there(queue))
        turn = (
            self._full_batch(now_s)
            or self._lone_batch(now_s)
            or self._minibatch(now_s)
            or self._other(now_s)
        )
        return Decision(turn, refused)

    def has_room_for_training(self, now_s: float) -> bool:
        """Whether a wanted training job would be safe to run if no request were queued.

        If not, no minibatch fits the latency budgets beside the batches expected, and training
        starves; unless the device is only busy, `load` says by how much.
        """
        room = False
        for name in self._jobs.wanting():
            end_s = now_s + self._jobs.times(name).safe_s()
            fits = self._schedulability.is_safe(now_s, end_s, empty=True)
            room = room or fits or self._reconsider(name, now_s)
        return room

    @property
    def load(self) -> float:
        """Share of the device's time that inference needs at planned batches and observed rates.

        At 1 or above nothing is left for training.
        """
        return sum(queue.share for queue in self._queues.values())

    @property
    def training_names(self) -> tuple[str, ...]:
        """Names of the training jobs, wanted or not."""
        return self._jobs.names

    def queued(self, service: str) -> int:
        """Requests that wait, those among them that are late already too."""
        return len(self._queue(service))

    def times(self, name: str) -> LearnedTimes:
        """What is known of the times of a service's batches or a job's minibatches."""
        return self._jobs.times(name) if name in self._jobs else self._queue(name).times

    def rate_hz(self, service: str) -> float:
        """Arrivals in a second, as observed; 0 if nothing is known."""
        return self._queue(service).arrivals.rate_hz

    # The steps of a decision

    def _give_up(self, now_s: float) -> Iterator[RefusedRequest]:
        """Hopeless requests: refused, or put aside to be answered late."""
        for name, queue in self._queues.items():
            hopeless = queue.take_hopeless(now_s)
            if queue.service.late == "serve":
                queue.late += hopeless
                continue
            self.accounts[name].rejected_late += len(hopeless)
            for queued in hopeless:
                yield RefusedRequest(name, queued.request, "late")

    def _full_batch(self, now_s: float) -> RunBatch | None:
        """A batch of the planned size or more, of the most urgent service that has one."""
        full = [queue for queue in self._schedulability.by_deadline() if queue.is_full]
        return self._safe_batch(now_s, full)

    def _lone_batch(self, now_s: float) -> RunBatch | None:
        """A batch that no other request is expected to join in time, if training would run."""
        if not self._jobs.wanting():
            return None
        alone = [
            queue
            for queue in self._schedulability.by_deadline()
            if queue.joins(now_s, now_s + queue.service.latency_s) < 1
        ]
        return self._safe_batch(now_s, alone)

    def _minibatch(self, now_s: float) -> RunTraining | None:
        """A minibatch of the job that has had the least time, of those that are safe."""
        for name in self._jobs.wanting():
            end_s = now_s + self._jobs.times(name).safe_s()
            if self._schedulability.is_safe(now_s, end_s):
                turn = RunTraining(name)
                self._running = _Running(turn, name, (), now_s)
                return turn
            self.accounts[name].held += 1
        return None

    def _other(self, now_s: float) -> Turn:
        """With no full batch and no training that is safe."""
        waiting = self._schedulability.by_deadline()
        until_s = self._schedulability.latest_start_s()
        pressed = until_s <= now_s + _NOW_S or any(queue.is_full for queue in waiting)
        partial = pressed or self.has_room_for_training(now_s)
        if not (partial or self._jobs.wanting()):  # the device would idle
            waiting = [queue for queue in waiting if not self._fills(queue, now_s, until_s)]
            partial = bool(waiting)
        return (
            (self._safe_batch(now_s, waiting) if partial else None)
            or self._late_batch(now_s)
            or (self._best_batch(now_s, waiting) if pressed else None)
            or Wait(min(until_s, now_s + _AGAIN_S) if self._jobs.wanting() else until_s)
        )

    def _fills(self, queue: ServiceQueue, now_s: float, until_s: float) -> bool:
        """Whether the planned batch is expected to fill by then."""
        missing = queue.service.batch_size - len(queue.queue)
        return queue.joins(now_s, until_s) >= missing

    def _safe_batch(
        self, now_s: float, queues: Iterable[ServiceQueue], arrivals: bool = True
    ) -> RunBatch | None:
        """A batch that is safe, of the first service that has one: the least time per request."""
        for queue in queues:
            for size in queue.batches(queue.queue[0].deadline_s - now_s):
                end_s = now_s + queue.times.safe_s(size)
                if self._schedulability.is_safe(now_s, end_s, queue, size, arrivals=arrivals):
                    return self._run(now_s, queue, 0, size)
        return None

    def _late_batch(self, now_s: float) -> RunBatch | None:
        """A batch of requests that are late already, where that is safe or nothing else waits."""
        idle = not any(queue.queue for queue in self._queues.values())
        for queue in self._queues.values():
            size = min(len(queue.late), queue.largest)
            while size and not self._schedulability.is_safe(
                now_s, now_s + queue.times.safe_s(size)
            ):
                size -= 1
            size = size or (idle and len(queue.late) > 0)
            if size:
                return self._run(now_s, queue, 0, 0, int(size))
        return None

    def _best_batch(self, now_s: float, waiting: list[ServiceQueue]) -> RunBatch:
        """Where nothing is safe any more: what meets all that is queued, or most of it."""
        if found := self._safe_batch(now_s, waiting, arrivals=False):
            return found
        times = waiting[0].times
        deadlines_s = [queued.deadline_s for queued in waiting[0].queue]
        first, size = save_most(now_s, deadlines_s, times.safe_s, times.sizes)
        return self._run(now_s, waiting[0], first, size)

    # What they rest on

    def _run(
        self, now_s: float, queue: ServiceQueue, first: int, size: int, late: int = 0
    ) -> RunBatch:
        """Take a batch out of the queue and begin it, filled up with late requests if safe."""
        if size and queue.late:
            spare = min(len(queue.late), queue.largest - size)
            end_s = now_s + queue.times.safe_s(size + spare)
            met = not exceeds(end_s, queue.queue[first].deadline_s)
            safe = met and self._schedulability.is_safe(now_s, end_s, queue, first + size)
            late = spare if safe else 0
        batch = tuple(queue.take(first, size, late))
        name = queue.service.name
        turn = RunBatch(name, tuple(queued.request for queued in batch))
        self._running = _Running(turn, name, batch, now_s)
        return turn

    def _end(self, turn: Turn) -> _Running:
        running = self._running
        if running is None or running.turn != turn:
            holder = "nobody has it" if running is None else f"{running.turn} has it"
            raise InvalidInput(f"{turn} does not have the device; {holder}")
        self._running = None
        return running

    def _charge(self, running: _Running, took_s: float) -> Account:
        account = self.accounts[running.job]
        account.busy_s += took_s
        if running.job in self._jobs:
            self._jobs.had(running.job, took_s)
        return account

    def _free_s(self, now_s: float) -> float:
        """When the running turn should end, or now."""
        if self._running is None:
            return now_s
        expected_s = self.times(self._running.job).expected_s(self._running.size)
        return max(now_s, self._running.start_s + expected_s)

    def _is_there(self, queue: ServiceQueue) -> bool:
        """Whether a request of a service waits or runs."""
        running = self._running is not None and self._running.job == queue.service.name
        return running or bool(queue.queue)

    def _reconsider(self, name: str, now_s: float) -> bool:
        return self._backoff[name].reconsider(self.times(name), now_s)

    def _unlearn(self, name: str) -> None:
        if self._running is not None and self._running.job == name:
            self._running = self._running._replace(learn=False)

    def _new_times(self, time_s: Mapping[int, float], weight: float) -> LearnedTimes:
        return LearnedTimes(time_s, quantile=self._quantile, spread=self._spread, weight=weight)

    def _claim(self, name: str) -> None:
        if name in self.accounts:
            raise InvalidInput(f"there is a job named {name!r} already")
        self.accounts[name] = Account()
        self._backoff[name] = Backoff()

    def _queue(self, name: str) -> ServiceQueue:
        if name not in self._queues:
            raise UnknownName("service", name, self._queues)
        return self._queues[name]
