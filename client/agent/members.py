"""The clients that the agent trains for: one for each run and partition, warm between rounds."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from powerctl.device import Device
from powerctl.errors import InvalidInput
from powerctl.plugins import names_code
from powerctl.task.process_memory import oom_kills
from powerctl.workload import Workload
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.round_device import RoundDevice
from wattfed.client.fleet import profile_from_node_config
from wattfed.client.tasks.federated import import_compiler, is_installed
from wattfed.client.worker.charging import costs_source
from wattfed.client.worker.client_state import StateFile
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.local_client import LocalClient, Progress
from wattfed.client.worker.messages import RoundContext, assignment_of, evaluated, trained
from wattfed.client.worker.model_arrays import array_record_of, load_arrays
from wattfed.strategies.protocol import ARRAYS, RUN, RoundOffer, RoundReport, plan_round
from wattfed.strategies.run_config import RunConfig

_LOG = logging.getLogger("wattfed.agent")
_KEPT_MEMBERS = 8  # members in memory; those whose state is on disc too make room for others


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
        import_compiler()  # before a round whose clock runs
        self._model = client.task.model()
        self._busy, self._offering = threading.Lock(), threading.Lock()
        self._offer: tuple[int, RoundOffer] | None = None  # and the round that it is for
        self._is_on_disc = True
        self._killed_in, self._how = client.state.under_way, ""
        if self._killed_in:
            self._how = client.was_killed()
            self._is_on_disc = False
            self.keep()

    @classmethod
    def of(
        cls,
        run_config: Mapping[str, Any],
        node_config: Mapping[str, Any],
        device: Device,
        folder: Path,
        cost_models: CostModels,
    ) -> Member:
        """The member that configurations of run and node describe; raises `InvalidInput`."""
        config = RunConfig.from_flower(run_config)
        if names_code(config.workload):
            raise InvalidInput(
                f"workload {config.workload!r}: an agent loads no code that a run points to; "
                "install its package on this board, and name its entry point"
            )
        try:
            profile = profile_from_node_config({**node_config, "device": "agent"})
            n_clients, run = int(node_config["num-partitions"]), str(node_config[RUN])
        except (KeyError, ValueError) as error:
            raise InvalidInput(f"node config: {error}") from None
        own = tuple(sorted(node_config.items()))
        costs = costs_source(config, cost_models.folder, own)
        file = StateFile.of(folder, run, profile.client, costs)
        state = file.read()
        client = LocalClient(config, profile, n_clients, state, device, cost_models, own)
        return cls(run, client, file)

    @property
    def is_training(self) -> bool:
        """Whether a round of it is going on."""
        return self._busy.locked()

    @property
    def left_j(self) -> float:
        """Joules left of its energy budget; infinite without one."""
        return self.client.profile.limits.energy_budget_j - self.client.state.spent_j

    def offer(self, context: RoundContext) -> RoundOffer:
        """What it can do in a round; made once, however often one asks."""
        with self._offering:
            if self._offer is None or self._offer[0] != context.server_round:
                labels = self.client.state.label_counts
                self._offer = (context.server_round, self.client.offer(context.clock_s))
                if self.client.state.label_counts != labels:  # told once and for all
                    self._is_on_disc = False
                    self.keep()
            return self._offer[1]

    def was_killed_in(self, round_id: str) -> bool:
        """Whether an agent before this one began a round, and did not end it."""
        return bool(round_id) and round_id == self._killed_in

    def lost(self, content: RecordDict) -> RecordDict:
        """The reply to the message of that round."""
        context, assignment = RoundContext.of(content), assignment_of(content)
        why = f"the agent was killed during round {context.server_round}{self._how}"
        _LOG.warning("client %s: %s", assignment.client, why)
        return trained(self.client.lost(assignment, why, self.offer(context)), ArrayRecord())

    def train(
        self,
        round_id: str,
        device: RoundDevice,
        content: RecordDict,
        progress: Progress,
    ) -> tuple[RoundReport, ArrayRecord]:
        """Train as the server's message says; returns the report and the model's arrays.

        Parameters
        ----------
        round_id : str
            Written down as under way, for the next agent if this one is killed.
        device : RoundDevice
            Runs a minibatch in its turn.
        content : RecordDict
            Of the message.
        progress : callable
            As for `LocalClient.train`.
        """
        context, assignment = RoundContext.of(content), assignment_of(content)
        with self._busy, self._on(device):
            offer = self.offer(context)
            self._write_under_way(round_id, plan_round(offer, assignment).energy_j)
            load_arrays(self._model, content.array_records[ARRAYS])
            report = self.client.train(
                self._model,
                assignment,
                context.server_round,
                context.proximal_mu,
                progress,
                context.clock_s,
                offer,
            )
            return report, array_record_of(self._model)

    def evaluate(self, device: RoundDevice, content: RecordDict) -> RecordDict:
        """Evaluate the message's model on this client's own samples; the content of the reply."""
        context = RoundContext.of(content)
        with self._busy, self._on(device):
            load_arrays(self._model, content.array_records[ARRAYS])
            found = self.client.evaluate(self._model, context.server_round, context.clock_s)
        return evaluated(*found)

    @contextmanager
    def _on(self, device: RoundDevice) -> Iterator[None]:
        """Work in turns, and write what it has spent."""
        between, self.client.device = self.client.device, device
        try:
            yield
        finally:
            self.client.device = between
            self.client.state.under_way = ""
            self._is_on_disc, self._offer = False, None
            self.keep()

    def _write_under_way(self, round_id: str, planned_j: float) -> None:
        """Write down a round, and all that it may take as spent: if it is killed, nothing tells."""
        state = self.client.state
        state.under_way, state.oom_kills = round_id, oom_kills()
        self._file.write(replace(state, spent_j=state.spent_j + planned_j))

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
    cost_models : CostModels
        Predicts their minibatches.
    tasks : OwnTasks
        That it may load, beside those that are installed.
    """

    def __init__(
        self, device: Device, folder: Path, cost_models: CostModels, tasks: OwnTasks
    ) -> None:
        self._device = device
        self._folder = folder
        self._cost_models = cost_models
        self._tasks = tasks
        self._known: dict[str, Member] = {}
        self._lock = threading.Lock()

    def get(
        self, run_config: Mapping[str, Any], node_config: Mapping[str, Any], task_hash: str
    ) -> Member:
        """The member of some configurations; any thread may ask.

        A task of the user's own is the agent's, of the server's hash; raises `InvalidInput` if it
        has none.
        """
        task = str(run_config.get("task", RunConfig.task))
        with self._lock:
            if not is_installed(task):
                run_config = {**run_config, "task": self._tasks.source(task, task_hash)}
            try:
                key = json.dumps([dict(run_config), dict(node_config), task_hash], sort_keys=True)
            except TypeError:
                raise InvalidInput("a configuration holds bytes, which no key takes") from None
            if key not in self._known:
                made = Member.of(
                    run_config, node_config, self._device, self._folder, self._cost_models
                )
                self._known[key] = made
            self._known[key] = self._known.pop(key)  # the last ones are the newest
            for old in list(self._known)[:-_KEPT_MEMBERS]:
                if not self._known[old].is_training and self._known[old].keep():
                    del self._known[old]
            return self._known[key]

    def keep(self) -> None:
        """Write the states that could not be written; those that train do so themselves."""
        with self._lock:
            for member in self._known.values():
                if not member.is_training:
                    member.keep()

    def workloads(self) -> list[Workload]:
        """What the members that are in memory train, each once."""
        with self._lock:
            found = {
                member.client.workload.name: member.client.workload
                for member in self._known.values()
            }
        return list(found.values())

    def budgets(self) -> list[tuple[str, int, float]]:
        """Run, client, and joules left of its energy budget, of every client that has one."""
        with self._lock:
            members = list(self._known.values())
        left = {(member.run, member.client.profile.client): member.left_j for member in members}
        return [(*who, left_j) for who, left_j in left.items() if math.isfinite(left_j)]
