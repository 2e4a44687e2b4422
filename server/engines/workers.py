"""Several processes that train clients: the same result as one, sooner."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Protocol

from powerctl.errors import PowerctlError
from powerctl.stopping import unheard
from wattfed.client.fleet import load_fleet
from wattfed.server.engines.clients import Clients, Done, Instructions, Job
from wattfed.strategies.run_config import RunConfig

Jobs = Sequence[Job]
Ended = Callable[[], object]
_PAYS_S = 30.0  # of training that is left: starting a process takes some seconds
_GRACE_S = 1.0


class Trains(Protocol):
    """What trains and evaluates the clients of a round."""

    def do(self, instructions: Instructions, jobs: Jobs, ended: Ended) -> list[Done | None]:
        """One result per job, in their order; None for who raised. Calls `ended` after each."""
        ...

    def close(self) -> None:
        """End what was started."""


class WorkerDied(PowerctlError):
    """A worker process ended."""


class Workers:
    """Processes with a resident model each, among which the clients of a round are shared out.

    Parameters
    ----------
    config : RunConfig
        The run.
    n : int
        Processes.
    """

    def __init__(self, config: RunConfig, n: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            with unheard():
                for _ in range(n):
                    here, there = context.Pipe()
                    process = context.Process(target=_work, args=(config, there))
                    process.start()
                    there.close()
                    self._pipes.append(here)
                    self._processes.append(process)
        except BaseException:
            self.close()
            raise

    def do(self, instructions: Instructions, jobs: Jobs, ended: Ended) -> list[Done | None]:
        """One result per job, in their order; None for who raised. Calls `ended` after each."""
        n = len(self._pipes)
        results: list[Done | None] = [None] * len(jobs)
        awaited = {pipe: deque(range(i, len(jobs), n)) for i, pipe in enumerate(self._pipes)}
        try:
            for first, pipe in enumerate(self._pipes):
                pipe.send((instructions, jobs[first::n]))
            while busy := [pipe for pipe, places in awaited.items() if places]:
                for pipe in busy:
                    if pipe in wait(busy):
                        results[awaited[pipe].popleft()] = pipe.recv()
                        ended()
        except (EOFError, OSError):
            raise WorkerDied("a worker process died; run with --workers 1 to see why") from None
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


def _work(config: RunConfig, pipe: Connection) -> None:
    """A worker process, until the other end of its pipe is closed."""
    clients = Clients(config, load_fleet(config.fleet))
    with suppress(EOFError, BrokenPipeError):
        while True:
            instructions, jobs = pipe.recv()
            for done in clients.each(instructions, jobs):
                pipe.send(done)


class AsItPays:
    """Trains in this process, and in as many as there are cores once that will have paid.

    Parameters
    ----------
    config : RunConfig
        The run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._trains: Trains = Clients(config, load_fleet(config.fleet))
        self._cores = len(os.sched_getaffinity(0))
        if multiprocessing.parent_process() is not None:
            self._cores = 1  # the others are for this process's siblings

    def do(self, instructions: Instructions, jobs: Jobs, ended: Ended) -> list[Done | None]:
        """One result per job, in their order; None for who raised. Calls `ended` after each."""
        began_s = time.monotonic()
        results = self._trains.do(instructions, jobs, ended)
        took_s = time.monotonic() - began_s
        left = self._config.rounds - instructions.server_round
        if self._cores > 1 and took_s * left > _PAYS_S:
            self._trains, self._cores = Workers(self._config, self._cores), 1
        return results

    def close(self) -> None:
        """End what was started."""
        self._trains.close()


def trains(config: RunConfig) -> Trains:
    """What trains the clients of a run, in as many processes as its configuration says."""
    if config.workers == 0:
        return AsItPays(config)
    if config.workers == 1:
        return Clients(config, load_fleet(config.fleet))
    return Workers(config, config.workers)
