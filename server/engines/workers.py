"""Trains and evaluates the simulated clients of a round: in this process, several, or on Ray.

What comes of a client is a function of the model, its assignment and its state alone, so that
several processes give the same as one, sooner. For tasks with samples in memory one model is
resident, and each client's training begins by writing the global arrays into it. A user's own code
may leave more in a model than its arrays (its mode, what is frozen, a state that is not saved), so
that each client has one as it is made.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from logging import ERROR
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Protocol, cast

from flwr.common.logger import log
from torch import nn

from powerctl.errors import InvalidInput, PowerctlError, TaskFailed
from powerctl.stopping import unheard
from powerctl.task.randomness import Randomness
from wattfed.client.fleet import Fleet
from wattfed.client.worker.charging import Charge
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient, RoundDraws
from wattfed.client.worker.model_arrays import Arrays, ResidentArrays
from wattfed.server.run.federation import task_of
from wattfed.strategies.protocol import (
    EvaluationReport,
    RoundAssignment,
    RoundOffer,
    RoundReport,
)
from wattfed.strategies.round.sums import UpdateSum
from wattfed.strategies.round.updates import GlobalModel, training_metrics, weighed
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.summaries import UpdateSummary

_PAYS_S = 30.0  # of training that is left: starting a process takes some seconds
_GRACE_S = 1.0


@dataclass(frozen=True)
class SimulatedRun:
    """What those who train a run's clients are told of it, once."""

    config: RunConfig
    fleet: Fleet
    charge: Charge


@dataclass(frozen=True)
class Instructions:
    """What all clients of a round are told: the global model and the aggregation's settings.

    Where updates are `summed`, each block of clients gives one sum in place of their arrays; of
    each update there is a summary then, if updates are to be `summarised`.
    """

    server_round: int
    clock_s: float
    model: GlobalModel
    proximal_mu: float = 0.0
    summed: bool = False
    summarised: bool = False


@dataclass(frozen=True)
class ClientJob:
    """What one client is asked for, on what offer, and what it has kept until then.

    Without an assignment it evaluates the model. Its update counts for so many examples at most.
    """

    client: int
    state: ClientState
    assignment: RoundAssignment | None = None
    offer: RoundOffer | None = None
    most_examples: float = math.inf


@dataclass(frozen=True)
class Trained:
    """What training came to: the report, the client's new state, its arrays if it trained.

    There are none where they are in a sum, or where that refused them.
    """

    report: RoundReport
    state: ClientState
    arrays: Arrays | None = None
    is_summed: bool = False
    refused: str = ""
    summary: UpdateSummary | None = None


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation came to: the report, the client's new state, the metrics."""

    report: EvaluationReport
    state: ClientState
    metrics: dict[str, float]


Done = Trained | Evaluated
Jobs = Sequence[ClientJob]
Ended = Callable[[], object]


def longest_first(blocks: Sequence[Jobs]) -> deque[int]:
    """Places of the blocks in the order in which they are best handed out to whoever is free.

    Those with most minibatches come first, so that what is left in the end is short.
    """
    work = [sum(job.assignment.minibatches for job in jobs if job.assignment) for jobs in blocks]
    return deque(sorted(range(len(blocks)), key=work.__getitem__, reverse=True))


@dataclass(frozen=True)
class BlockDone:
    """What came of a block of jobs: one result each, None for who raised, and their updates' sum.

    Nothing is in the sum where updates are not summed.
    """

    done: list[Done | None] = field(default_factory=list)
    total: UpdateSum = field(default_factory=UpdateSum)


class Clients:
    """Trains and evaluates the clients of a run in this process, one after the other."""

    def begin(self, run: SimulatedRun) -> None:
        """Train the clients of another run from now on."""
        self._config, self._fleet, self._charge = run.config, run.fleet, run.charge
        self._task = task_of(run.config)
        self._resident: ResidentArrays | None = None

    def do(
        self, instructions: Instructions, blocks: Sequence[Jobs], ended: Ended
    ) -> list[BlockDone]:
        """What comes of each block; calls `ended` after each client. Who raises is logged."""
        clients = [job.client for jobs in blocks for job in jobs]
        drawn = iter(RoundDraws.of_fleet(self._config, instructions.server_round, clients))
        results = []
        with Randomness(self._config.seed):  # each draws from a seed of its own
            for jobs in blocks:
                block = BlockDone()
                for job in jobs:
                    block.done.append(self._do(instructions, job, next(drawn), block.total))
                    ended()
                results.append(block)
        return results

    def close(self) -> None:
        """Nothing was started that had to be ended."""

    def _do(
        self, instructions: Instructions, job: ClientJob, drawn: RoundDraws, total: UpdateSum
    ) -> Done | None:
        client = self._client(job)
        try:
            if self._resident is None or self._task.samples is None:
                self._resident = ResidentArrays(self._task.first_model())
            self._resident.load(instructions.model.numbers)
            if job.assignment is None:
                return self._evaluate(client, self._resident.model, instructions)
            report = client.train(
                self._resident.model,
                job.assignment,
                instructions.server_round,
                instructions.proximal_mu,
                clock_s=instructions.clock_s,
                offer=job.offer,
                drawn=drawn,
            )
            if report.lost or not report.minibatches:
                return Trained(report, client.state)
            if not instructions.summed:
                return Trained(report, client.state, self._resident.copy())
            trained = Trained(report, client.state)
            return _added(trained, total, instructions, self._resident.look(), job)
        except PowerctlError as error:
            log(ERROR, "client %s: %s", job.client, error)
            if isinstance(error, TaskFailed) and error.traceback:
                log(ERROR, error.traceback)
        except Exception as error:
            log(ERROR, "client %s raised", job.client, exc_info=error)
        return None

    def _client(self, job: ClientJob) -> LocalClient:
        """The client of a job; all of a fleet learn one task, and are charged alike."""
        profile, divided = self._fleet[job.client], (self._charge, self._task)
        return LocalClient(self._config, profile, len(self._fleet), job.state, divided=divided)

    def _evaluate(
        self, client: LocalClient, model: nn.Module, instructions: Instructions
    ) -> Evaluated:
        report, metrics = client.evaluate(model, instructions.server_round, instructions.clock_s)
        return Evaluated(report, client.state, metrics)


def _added(
    trained: Trained,
    total: UpdateSum,
    instructions: Instructions,
    arrays: Arrays,
    job: ClientJob,
) -> Trained:
    """Add an update to the sum of its block, unless it is refused."""
    model = instructions.model
    try:
        model.check(arrays)
    except InvalidInput as error:
        return replace(trained, refused=str(error))
    total.add(model, arrays, training_metrics(weighed(trained.report, job.most_examples)))
    summary = model.summary(arrays) if instructions.summarised else None
    return replace(trained, is_summed=True, summary=summary)


class Trains(Protocol):
    """What trains and evaluates the clients of a round, for one run after the other."""

    def begin(self, run: SimulatedRun) -> None:
        """Take the run whose rounds come next."""
        ...

    def do(
        self, instructions: Instructions, blocks: Sequence[Jobs], ended: Ended
    ) -> list[BlockDone]:
        """What comes of each block, in their order; calls `ended` after each client."""
        ...

    def close(self) -> None:
        """End the processes that were started, if any."""


class WorkerDied(PowerctlError):
    """A process that trains simulated clients ended before its work was done."""


class Workers:
    """Processes with a resident model each, among which the clients of a round are shared out.

    Parameters
    ----------
    n : int
        Processes; they start with the first run.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []

    def begin(self, run: SimulatedRun) -> None:
        """Take the run whose rounds come next, in processes that stay for those after it."""
        if not self._pipes:
            self._start()
        with self._noticing_ends():
            self._tell_all(run, self._n)

    def do(
        self, instructions: Instructions, blocks: Sequence[Jobs], ended: Ended
    ) -> list[BlockDone]:
        """What comes of each block, in their order; calls `ended` after each client."""
        results, waiting = [BlockDone()] * len(blocks), longest_first(blocks)
        free = self._pipes[: len(blocks)]
        at_work: dict[Connection, int] = {}
        with self._noticing_ends():
            self._tell_all(instructions, len(free))
            while waiting or at_work:
                for pipe in free[: len(waiting)]:
                    at_work[pipe] = waiting.popleft()
                    pipe.send(blocks[at_work[pipe]])
                free = []
                for pipe in cast(list[Connection], wait(at_work)):
                    if (came := pipe.recv()) is None:
                        ended()
                        continue
                    results[at_work.pop(pipe)] = came
                    free.append(pipe)
        return results

    def close(self) -> None:
        """End the processes, also one that still trains."""
        for pipe in self._pipes:
            pipe.close()
        ends_s = time.monotonic() + _GRACE_S
        for process in self._processes:
            process.join(max(ends_s - time.monotonic(), 0.0))
            process.kill()
            process.join()
        self._pipes, self._processes = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        try:
            with unheard():
                for _ in range(self._n):
                    here, there = context.Pipe()
                    self._pipes.append(here)
                    process = context.Process(target=_work, args=(there,))
                    process.start()
                    there.close()
                    self._processes.append(process)
        except BaseException:
            self.close()
            raise

    def _tell_all(self, what: SimulatedRun | Instructions, n: int) -> None:
        whole = bytes(ForkingPickler.dumps(what))
        for pipe in self._pipes[:n]:
            pipe.send_bytes(whole)

    @contextmanager
    def _noticing_ends(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.close()  # the others have work that nobody awaits any more
            raise WorkerDied("a worker process died; run with --workers 1 to see why") from None


def _work(pipe: Connection) -> None:
    """A worker process, until the other end of its pipe is closed; None says that one has ended."""
    clients = Clients()
    instructions = Instructions(0, 0.0, GlobalModel({}))
    with suppress(EOFError, ConnectionError):  # closed before, or in the midst of, a message
        while True:
            came: SimulatedRun | Instructions | Jobs = pipe.recv()
            if isinstance(came, SimulatedRun):
                clients.begin(came)
            elif isinstance(came, Instructions):
                instructions = came
            else:
                (done,) = clients.do(instructions, [came], ended=lambda: pipe.send(None))
                pipe.send(done)


class AsItPays:
    """Trains in this process, and in as many as there are cores once that will have paid."""

    def __init__(self) -> None:
        self._trains: Trains = Clients()
        self._cores = len(os.sched_getaffinity(0))
        if multiprocessing.parent_process() is not None:
            self._cores = 1  # the others are for this process's siblings

    def begin(self, run: SimulatedRun) -> None:
        """Take the run whose rounds come next."""
        self._run = run
        self._trains.begin(run)

    def do(
        self, instructions: Instructions, blocks: Sequence[Jobs], ended: Ended
    ) -> list[BlockDone]:
        """What comes of each block, in their order; calls `ended` after each client."""
        began_s = time.monotonic()
        results = self._trains.do(instructions, blocks, ended)
        took_s = time.monotonic() - began_s
        left = self._run.config.rounds - instructions.server_round
        if self._cores > 1 and took_s * left > _PAYS_S:
            self._trains, self._cores = Workers(self._cores), 1
            self._trains.begin(self._run)
        return results

    def close(self) -> None:
        """End the processes that were started, if any."""
        self._trains.close()
