"""The clients that the agent trains for: one for each run and partition, warm between rounds."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, RecordDict

from powerctl.device import Device
from powerctl.errors import InvalidInput
from wattfed.client.agent.knowledge import Knowledge
from wattfed.client.agent.models import task_model
from wattfed.client.agent.registry import Registry
from wattfed.client.agent.turns import TurnDevice
from wattfed.client.fleet import profile_from_node_config
from wattfed.client.local import LocalClient, Progress
from wattfed.client.messages import Told, assignment_of, evaluated, trained
from wattfed.client.state_file import StateFile
from wattfed.client.tasks.evaluation import evaluate
from wattfed.strategies.protocol import ARRAYS, RUN, RoundOffer, RoundReport
from wattfed.strategies.run_config import RunConfig

_KEPT = 8  # members in memory; those whose state is on disc too make room for others


class Member:
    """A client of one federation: its data and model stay loaded, its state is kept on disc.

    Parameters
    ----------
    run : str
        Of the federation.
    client : LocalClient
        Plans and trains.
    file : StateFile
        Of its state.
    """

    def __init__(self, run: str, client: LocalClient, file: StateFile) -> None:
        self.run = run
        self.client = client
        self._file = file
        self._model = client.task.model()
        self._busy = threading.Lock()
        self._offer: tuple[int, RoundOffer] | None = None  # and the round that it is for
        self._offering = threading.Lock()
        self._is_on_disc = True

    @classmethod
    def of(
        cls,
        run_config: Mapping[str, Any],
        node_config: Mapping[str, Any],
        device: Device,
        folder: Path,
        knowledge: Knowledge,
    ) -> Member:
        """The member that configurations of run and node describe; raises `InvalidInput`."""
        config = RunConfig.from_flower(run_config)
        try:
            profile = profile_from_node_config({**node_config, "device": "agent"})
            n_clients, run = int(node_config["num-partitions"]), str(node_config[RUN])
        except (KeyError, ValueError) as error:
            raise InvalidInput(f"node config: {error}") from None
        source = knowledge.source(config.workload)
        file = StateFile.of(folder, run, profile.client, source.name if source else "")
        state = file.read()
        client = LocalClient(config, profile, n_clients, state, device, knowledge.predictor)
        return cls(run, client, file)

    @property
    def is_training(self) -> bool:
        """Whether a round of it is going on."""
        return self._busy.locked()

    @property
    def left_j(self) -> float:
        """Joules left of its energy budget; infinite without one."""
        return self.client.profile.limits.energy_budget_j - self.client.state.spent_j

    def offer(self, told: Told) -> RoundOffer:
        """What it can do in a round; made once, however often one asks."""
        with self._offering:
            if self._offer is None or self._offer[0] != told.server_round:
                self._offer = (told.server_round, self.client.offer(told.clock_s))
            return self._offer[1]

    def train(
        self,
        device: TurnDevice,
        content: RecordDict,
        progress: Progress,
        interrupted: Callable[[RoundReport], RoundReport],
    ) -> RecordDict:
        """Train as the server's message says; the content of the reply.

        Parameters
        ----------
        device : TurnDevice
            Runs a minibatch in its turn.
        content : RecordDict
            Of the message.
        progress : callable
            As for `LocalClient.train`.
        interrupted : callable
            Adds to the report what the agent knows of the round.
        """
        told, assignment = Told.of(content), assignment_of(content)
        with self._busy:
            load(self._model, content)
            between, self.client.device = self.client.device, device
            try:
                report = self.client.train(
                    self._model,
                    assignment,
                    told.server_round,
                    told.proximal_mu,
                    progress,
                    told.clock_s,
                    self.offer(told),
                )
            finally:
                self.client.device = between
                self._is_on_disc, self._offer = False, None
                self.keep()
            return trained(interrupted(report), ArrayRecord(self._model.state_dict()))

    def evaluate(self, content: RecordDict) -> RecordDict:
        """Evaluate the message's model on this client's own samples; the content of the reply."""
        with self._busy:
            load(self._model, content)
            metrics = evaluate(self._model, self.client.samples)
        return evaluated(len(self.client.samples), **metrics)

    def keep(self) -> bool:
        """Write the state if it is not on disc; whether it is then, as a disc may be full."""
        self._is_on_disc = self._is_on_disc or self._file.write(self.client.state)
        return self._is_on_disc


class Members:
    """The members of an agent that were heard of last, made when they are first heard of.

    One whose state could not be written stays until it can: what it has spent is nowhere else.

    Parameters
    ----------
    device : Device
        Whose modes they may offer.
    folder : Path
        Of their states.
    knowledge : Knowledge
        Predicts their minibatches.
    """

    def __init__(self, device: Device, folder: Path, knowledge: Knowledge) -> None:
        self._device = device
        self._folder = folder
        self._knowledge = knowledge
        self._known: dict[str, Member] = {}
        self._lock = threading.Lock()

    def get(self, run_config: Mapping[str, Any], node_config: Mapping[str, Any]) -> Member:
        """The member of some configurations; any thread may ask."""
        key = json.dumps([dict(run_config), dict(node_config)], sort_keys=True)
        with self._lock:
            if key not in self._known:
                made = Member.of(
                    run_config, node_config, self._device, self._folder, self._knowledge
                )
                self._known[key] = made
            self._known[key] = self._known.pop(key)  # the last ones are the newest
            for old in list(self._known)[:-_KEPT]:
                if not self._known[old].is_training and self._known[old].keep():
                    del self._known[old]
            return self._known[key]

    def keep(self) -> None:
        """Write the states that could not be written; those that train do so themselves."""
        with self._lock:
            for member in self._known.values():
                if not member.is_training:
                    member.keep()

    def budgets(self) -> list[tuple[str, int, float]]:
        """Run, client, and joules left of its energy budget, of every client that has one."""
        with self._lock:
            members = list(self._known.values())
        left = {(member.run, member.client.profile.client): member.left_j for member in members}
        return [(*who, left_j) for who, left_j in left.items() if math.isfinite(left_j)]


def load(model: torch.nn.Module, content: RecordDict) -> None:
    """Load a message's parameters into a model; raises `InvalidInput` if they are of another."""
    try:
        model.load_state_dict(content.array_records[ARRAYS].to_torch_state_dict())
    except (RuntimeError, KeyError) as error:
        raise InvalidInput(f"the arrays do not fit the task's model: {error}") from None


def serve_global(registry: Registry, task: str, content: RecordDict) -> None:
    """Swap a message's parameters, the global ones, into every served model of a task."""
    for model in registry.models():
        if registry.task(model.name) == task:
            state = dict(content.array_records[ARRAYS].to_torch_state_dict())
            source = f"federated round, after version {model.version}"
            registry.swap(task_model(model.name, task, state, model.version + 1, source))
