"""Trains the clients of a round on all nodes of a Ray cluster, with the bits of one process.

An actor on each core or GPU has what a process of `workers` has: a resident model, the task and its
data. The round's model is in the object store once, blocks of clients are handed out to whoever is
free, and sums come back. What an actor that dies was at is trained again by another; nodes that
join are used from the next round on.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from logging import WARNING
from pathlib import Path
from typing import Any, NamedTuple

from flwr.common.logger import log

from powerctl.accelerator import CHOICE, CPU
from powerctl.errors import InvalidInput
from powerctl.reading import in_line
from wattfed.server.engines.node_code import differences, on_nodes, versions, write_archive
from wattfed.server.engines.workers import (
    BlockDone,
    Clients,
    Ended,
    Instructions,
    Jobs,
    SimulatedRun,
    WorkerDied,
    longest_first,
)
from wattfed.strategies.run_config import RunConfig

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise InvalidInput(
        "workers are to be Ray's, which is not installed: pip install 'wattfed[sim]', or give a "
        "number of processes"
    ) from None

_TRIES = 3  # of an actor to start on a node, and of a block of clients to be trained
_POLL_S = 0.5  # after which a signal is heard
_ANSWERS_S = 5.0  # within which a cluster's head takes a connection
_FLOWER = logging.getLogger("flwr")


class _Said(logging.Handler):
    """Keeps what is logged on a node, for whoever reads the log of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line and its level."""
        self.lines.append((record.levelno, self.format(record)))


class _Trainer:
    """What runs on a node: the clients of one block after the other.

    References to the run and to the round's instructions come in a list, which Ray hands on as they
    are: what they refer to is fetched once, not for each block.
    """

    def __init__(self) -> None:
        self._clients = Clients()
        self._run: Any = None
        self._round: Any = None
        self._said = _Said()
        _FLOWER.addHandler(self._said)

    def lacks(self, config: RunConfig, here: dict[str, str]) -> str:
        """What speaks against this node: other code, or other libraries, than the server's."""
        return differences(here, versions(config))

    def block(self, told: list[Any], jobs: Jobs) -> bytes:
        """What comes of a block of jobs, and what was logged meanwhile.

        Pickled here: arrays that Ray itself hands over cannot be added to.
        """
        run, server_round = told
        if run != self._run:
            self._clients.begin(ray.get(run))
            self._run = run
        if server_round != self._round:
            self._instructions: Instructions = ray.get(server_round)
            self._round = server_round
        (done,) = self._clients.do(self._instructions, [jobs], ended=list)
        said, self._said.lines = self._said.lines, []
        return pickle.dumps((done, said))


class _Actor(NamedTuple):
    """An actor, and the node that it is on."""

    handle: Any
    node: str


class RayWorkers:
    """Actors on all nodes of a Ray cluster, among which the clients of a round are shared out.

    Parameters
    ----------
    config : RunConfig
        Of the first run: which cluster, and which task; those that follow learn the same.

    Raises
    ------
    InvalidInput
        If no cluster answers, or it is of another version of Ray or Python.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = on_nodes(config)
        self._versions = versions(config)
        self._starting: dict[Any, _Actor] = {}  # by the answer that is awaited
        self._free: list[_Actor] = []
        self._failed: Counter[str] = Counter()  # starts, by node
        self._why = "it has no node with a core to give"
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "code.zip"
            write_archive(archive, config)
            _connect(config.cluster or "", archive)

    def begin(self, run: SimulatedRun) -> None:
        """Take the run whose rounds come next."""
        self._run = ray.put(replace(run, config=on_nodes(run.config)))

    def do(
        self, instructions: Instructions, blocks: Sequence[Jobs], ended: Ended
    ) -> list[BlockDone]:
        """What comes of each block, in their order; calls `ended` after each client."""
        told = [self._run, ray.put(instructions)]
        results, waiting = [BlockDone()] * len(blocks), longest_first(blocks)
        at_work: dict[Any, tuple[_Actor, int]] = {}
        tries: Counter[int] = Counter()
        self._start()
        while waiting or at_work:
            while waiting and self._free:
                actor, place = self._free.pop(), waiting.popleft()
                at_work[actor.handle.block.remote(told, blocks[place])] = actor, place
            for answer in self._answers(at_work):
                if answer in self._starting:
                    self._started(answer)
                    continue
                actor, place = at_work.pop(answer)
                try:
                    results[place], said = pickle.loads(ray.get(answer))
                except RayTaskError as error:
                    raise error.cause or error from None
                except RayError as error:
                    tries[place] += 1
                    if tries[place] == _TRIES:
                        raise WorkerDied(_deadly(blocks[place], error)) from None
                    waiting.appendleft(place)
                    self._lost(actor)
                    continue
                self._free.append(actor)
                for level, line in said:
                    log(level, "%s", line)
                for _ in blocks[place]:
                    ended()
        return results

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        ray.shutdown()

    def _start(self) -> None:
        """Start an actor on each core or GPU that has none, on nodes that have joined as well."""
        there = Counter(actor.node for actor in (*self._free, *self._starting.values()))
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        for node in nodes:
            name, (room, need) = node["NodeID"], _room(node["Resources"])
            if not node["Alive"] or self._failed[name] >= _TRIES:
                continue
            for _ in range(room - there[name]):
                where = NodeAffinitySchedulingStrategy(name, soft=False)
                trainer: Any = ray.remote(_Trainer)
                actor = _Actor(trainer.options(scheduling_strategy=where, **need).remote(), name)
                answer = actor.handle.lacks.remote(self._config, self._versions)
                self._starting[answer] = actor

    def _started(self, answer: Any) -> None:
        """Take an actor that has come up, if it runs what this process runs."""
        actor = self._starting.pop(answer)
        try:
            if not (why := ray.get(answer)):
                self._free.append(actor)
                return
            self._failed[actor.node] = _TRIES
        except RayTaskError as error:
            why, self._failed[actor.node] = str(error.cause or error), _TRIES
        except RayError as error:
            why = str(error).strip().splitlines()[-1]
            self._failed[actor.node] += 1
        ray.kill(actor.handle)
        self._why = f"node {actor.node[:8]}: {in_line(why, 300)}"
        if self._failed[actor.node] == _TRIES:
            log(WARNING, "not used: %s", self._why)
        self._start()

    def _lost(self, actor: _Actor) -> None:
        """Do without an actor that has died, and start another where its node is still there."""
        log(WARNING, "an actor on node %s died; its clients are trained again", actor.node[:8])
        ray.kill(actor.handle)  # where it is only out of reach
        self._start()

    def _answers(self, at_work: dict[Any, Any]) -> list[Any]:
        """The answers that have come in, one at least; raises where none can come."""
        gives_up_s = time.monotonic() + self._config.timeout_s
        while True:
            awaited = [*at_work, *self._starting]
            if awaited:
                ready, _ = ray.wait(awaited, timeout=_POLL_S)
                if ready:
                    return list(ready)
            if not at_work and (not awaited or time.monotonic() > gives_up_s):
                raise WorkerDied(f"no node of the Ray cluster trains: {self._why}")


def _room(resources: dict[str, float]) -> tuple[int, dict[str, int]]:
    """How many actors a node takes, and what each is given of it: a GPU where it has some."""
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus and os.environ.get(CHOICE) != CPU:
        return min(cores, gpus), {"num_cpus": 1, "num_gpus": 1}
    return cores, {"num_cpus": 1}


def _deadly(jobs: Jobs, error: Exception) -> str:
    clients = ", ".join(str(job.client) for job in jobs)
    return (
        f"{_TRIES} actors died, one after the other, while they trained client {clients}: "
        f"{in_line(str(error), 300)}"
    )


def _connect(address: str, archive: Path) -> None:
    """Join a cluster as its driver, with the archive as the folder in which actors run."""
    if ray.is_initialized():
        raise InvalidInput("this process is connected to Ray already: call ray.shutdown() before")
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address:
        _check_answers(address)
    variables = {CHOICE: os.environ[CHOICE]} if CHOICE in os.environ else {}
    try:
        with _signals_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what Ray will do about GPUs one day
            ray.init(
                address or "auto",
                runtime_env={"working_dir": str(archive), "env_vars": variables},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "" if address else "; start one with: ray start --head, or give ray:HOST:PORT"
        raise InvalidInput(f"cannot join a Ray cluster: {in_line(str(error), 300)}{hint}") from None


def _check_answers(address: str) -> None:
    """Raise at once where nobody listens; Ray itself would ask again for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ANSWERS_S).close()
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"no Ray cluster answers at {address}: {error}; the address is what ray start --head "
            "has printed"
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave SIGTERM to whom it was; Ray would end the process by a way of its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
