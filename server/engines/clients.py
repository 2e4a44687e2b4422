"""The clients of a simulation: a pure function of model, assignment and client state.

For tasks with samples in memory one model is resident, and each client's training begins by writing
the global arrays into it. A user's own code may leave more in a model than its arrays (its mode,
what is frozen, a state that is not saved), so that each client has one as it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from logging import ERROR

from flwr.common.logger import log
from torch import nn

from powerctl.errors import PowerctlError
from powerctl.task.randomness import Randomness
from wattfed.client.fleet import Fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.model_arrays import Arrays, ResidentArrays
from wattfed.server.run.federation import task_of
from wattfed.strategies.protocol import (
    EvaluationReport,
    RoundAssignment,
    RoundOffer,
    RoundReport,
)
from wattfed.strategies.run_config import RunConfig


@dataclass(frozen=True)
class Instructions:
    """What all clients of a round are told: the global arrays and the aggregation's settings."""

    server_round: int
    clock_s: float
    arrays: Arrays
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class Job:
    """What one client is asked for, on what offer, and what it has kept until then.

    Without an assignment it evaluates the model.
    """

    client: int
    state: ClientState
    assignment: RoundAssignment | None = None
    offer: RoundOffer | None = None


@dataclass(frozen=True)
class Trained:
    """What training came to: the report, the client's new state, its arrays if it trained."""

    report: RoundReport
    state: ClientState
    arrays: Arrays | None


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation came to: the report, the client's new state, the metrics."""

    report: EvaluationReport
    state: ClientState
    metrics: dict[str, float]


Done = Trained | Evaluated


class Clients:
    """Trains and evaluates clients of a fleet, one after the other.

    Parameters
    ----------
    config : RunConfig
        The run.
    fleet : Fleet
        All clients.
    """

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        self._config = config
        self._fleet = fleet
        self._task = task_of(config)
        self._resident: ResidentArrays | None = None

    def do(
        self, instructions: Instructions, jobs: Sequence[Job], ended: Callable[[], object]
    ) -> list[Done | None]:
        """As `each`, all of them; calls `ended` after each."""
        results = []
        for done in self.each(instructions, jobs):
            results.append(done)
            ended()
        return results

    def each(self, instructions: Instructions, jobs: Sequence[Job]) -> Iterator[Done | None]:
        """What comes of each job from its client's state; None for who raised, which is logged."""
        with Randomness(self._config.seed):  # each draws from a seed of its own
            for job in jobs:
                yield self._do(instructions, job)

    def close(self) -> None:
        """Nothing was started."""

    def _do(self, instructions: Instructions, job: Job) -> Done | None:
        profile = self._fleet[job.client]
        client = LocalClient(self._config, profile, len(self._fleet), job.state)
        try:
            if self._resident is None or self._task.samples is None:
                self._resident = ResidentArrays(self._task.first_model())
            self._resident.load(instructions.arrays)
            if job.assignment is None:
                return self._evaluate(client, self._resident.model, instructions)
            return self._train(client, self._resident, instructions, job.assignment, job.offer)
        except PowerctlError as error:
            log(ERROR, "client %s: %s", job.client, error)
            if theirs := getattr(error, "traceback", ""):
                log(ERROR, theirs)
        except Exception as error:
            log(ERROR, "client %s raised", job.client, exc_info=error)
        return None

    def _train(
        self,
        client: LocalClient,
        resident: ResidentArrays,
        instructions: Instructions,
        assignment: RoundAssignment,
        offer: RoundOffer | None,
    ) -> Trained:
        report = client.train(
            resident.model,
            assignment,
            instructions.server_round,
            instructions.proximal_mu,
            clock_s=instructions.clock_s,
            offer=offer,
        )
        is_whole = report.minibatches and not report.lost
        return Trained(report, client.state, resident.copy() if is_whole else None)

    def _evaluate(
        self, client: LocalClient, model: nn.Module, instructions: Instructions
    ) -> Evaluated:
        report, metrics = client.evaluate(model, instructions.server_round, instructions.clock_s)
        return Evaluated(report, client.state, metrics)
