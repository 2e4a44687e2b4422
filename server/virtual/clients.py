"""The clients of a simulation: a pure function of model, assignment and client state.

One model is resident; each client's training begins by writing the global arrays into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from logging import ERROR

import torch
from flwr.common.logger import log

from wattfed.client.choices import training_workload
from wattfed.client.fleet import Fleet
from wattfed.client.local import LocalClient
from wattfed.client.model_arrays import Arrays, ResidentArrays
from wattfed.client.state_file import ClientState
from wattfed.client.tasks.federated import federated
from wattfed.strategies.protocol import RoundAssignment, RoundOffer, RoundReport
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
    """What one client of a round is asked for, on what offer, and what it has kept until then."""

    assignment: RoundAssignment
    offer: RoundOffer
    state: ClientState


@dataclass(frozen=True)
class Trained:
    """What training came to: the report, the client's new state, its arrays if it trained."""

    report: RoundReport
    state: ClientState
    arrays: Arrays | None


class Clients:
    """Trains clients of a fleet, one after the other.

    Parameters
    ----------
    config : RunConfig
        The run.
    fleet : Fleet
        All clients.
    """

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        torch.set_num_threads(1)  # the order of summation must not depend on the host's cores
        self._config = config
        self._fleet = fleet
        batch_size = training_workload(config.workload).batch_size
        self._model = federated(config, batch_size).model()
        self._resident = ResidentArrays(self._model)

    def train(self, instructions: Instructions, jobs: Sequence[Job]) -> list[Trained | None]:
        """Train as assigned, each from its state; None for who raised, which is logged."""
        return [self._train(instructions, job) for job in jobs]

    def close(self) -> None:
        """Nothing was started."""

    def _train(self, instructions: Instructions, job: Job) -> Trained | None:
        self._resident.load(instructions.arrays)
        try:
            profile = self._fleet[job.assignment.client]
            client = LocalClient(self._config, profile, len(self._fleet), job.state)
            report = client.train(
                self._model,
                job.assignment,
                instructions.server_round,
                instructions.proximal_mu,
                clock_s=instructions.clock_s,
                offer=job.offer,
            )
        except Exception as error:
            log(ERROR, "client %s raised", job.assignment.client, exc_info=error)
            return None
        arrays = None
        if report.minibatches and not report.lost:
            arrays = self._resident.copy()
        return Trained(report, client.state, arrays)
