"""Runs a federation over a fleet of simulated clients, on their virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType

from powerctl.errors import InvalidInput
from wattfed.client.fleet import Fleet
from wattfed.client.worker.pool import Pool
from wattfed.server.engines.workers import (
    ClientJob,
    Done,
    Evaluated,
    Instructions,
    Trained,
    Trains,
    trains,
)
from wattfed.server.run.checkpoints import digest_of
from wattfed.server.run.engine import AfterRound, OnPart
from wattfed.server.run.participants import MOST_TOLD, Participants
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import WEIGHT
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.strategy import SelectingStrategy, TrainingAnswer
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State

SUPERLINK_NODE_ID = 1
_ANY_NODE = SUPERLINK_NODE_ID + 1
_RUN_ID = 1
_NAMES = {"environment": "surroundings"}  # in checkpoints


class VirtualEngine:
    """In place of Flower's loop, grid and messages; everything above them is the same.

    Parameters
    ----------
    config : RunConfig
        The run.
    fleet : Fleet
        All clients.
    on_part : callable, optional
        Told within a round what is done, and how many clients of how many have done it.
    """

    label_noise = "the run's seed"

    def __init__(self, config: RunConfig, fleet: Fleet, on_part: OnPart = lambda *_: None) -> None:
        join_run(_RUN_ID)
        self._config = config
        self._fleet = fleet
        self._pool = Pool.of_fleet(config, fleet)
        self._on_part = on_part
        self._boards = [device.removeprefix("twin:") for device in fleet.device.tolist()]

    def run(
        self,
        strategy: SelectingStrategy,
        arrays: ArrayRecord,
        after_round: AfterRound,
    ) -> None:
        """All rounds that are not in the strategy's ledger yet."""
        first = len(strategy.ledger.entries) + 1
        trainer = trains(self._config)
        try:
            for server_round in range(first, self._config.rounds + 1):
                trained = self._train(trainer, strategy, server_round, arrays)
                aggregated, _ = strategy.close(server_round, [_answer(one) for one in trained])
                arrays = arrays if aggregated is None else aggregated
                self._evaluate(trainer, strategy, server_round, arrays)
                after_round(server_round, arrays)
        finally:
            trainer.close()

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Clients are called by their boards."""
        unable = self._pool.unable(MOST_TOLD)
        return Participants.of(offers, self._boards, unable, self._pool.charged)

    def plan(self) -> Participants:
        """The clients as the first round will find them, and what speaks against the plan."""
        offers = self._pool.offers()
        unable = self._pool.unable(MOST_TOLD)
        participants = Participants.of(offers, self._boards, unable, self._pool.charged)
        return participants.warned(self._config)

    def state(self) -> State:
        """What the clients keep, and what tells their fleet from others."""
        return {"fleet": self._fleet_digest, "kept": self._pool.kept()}

    def restore(self, state: State) -> None:
        """Take what the clients kept; raises `InvalidInput` if they are another fleet."""
        if state["fleet"] != self._fleet_digest:
            raise InvalidInput("the fleet has changed: another file, or other boards or limits")
        self._pool.restore(state["kept"])

    @cached_property
    def _fleet_digest(self) -> str:
        return digest_of(_columns(self._fleet))

    def _train(
        self, trainer: Trains, strategy: SelectingStrategy, server_round: int, arrays: ArrayRecord
    ) -> list[Trained]:
        clock_s = strategy.ledger.clock_s
        assignments = strategy.select(server_round, self._pool.offers(clock_s))
        nodes = [_ANY_NODE] if assignments else []  # all would be told the same
        messages = strategy.instruct(server_round, arrays, ConfigRecord(), nodes)
        told = next(iter(messages), None)
        if told is None:
            return []
        instructions = _instructions(server_round, clock_s, told)
        jobs = [
            ClientJob(a.client, self._pool.state(a.client), a, self._pool.offer(a.client))
            for a in assignments
        ]
        done = self._do(trainer, instructions, jobs, MessageType.TRAIN)
        return [one for one in done if isinstance(one, Trained)]

    def _evaluate(
        self, trainer: Trains, strategy: SelectingStrategy, server_round: int, arrays: ArrayRecord
    ) -> None:
        clients = strategy.evaluators(server_round)
        numbers = {name: array.numpy() for name, array in arrays.items()} if clients else {}
        instructions = Instructions(server_round, strategy.ledger.clock_s, numbers)
        jobs = [ClientJob(client, self._pool.state(client)) for client in clients]
        done = self._do(trainer, instructions, jobs, MessageType.EVALUATE)
        strategy.evaluated((o.report, o.metrics) for o in done if isinstance(o, Evaluated))

    def _do(
        self, trainer: Trains, instructions: Instructions, jobs: Sequence[ClientJob], what: str
    ) -> list[Done]:
        """What came of some jobs; whoever has come to an end keeps its new state."""
        number = itertools.count(1)

        def ended() -> None:
            self._on_part(what, next(number), len(jobs))

        came = trainer.do(instructions, jobs, ended) if jobs else []
        done = [one for one in came if one is not None]
        for one in done:
            self._pool.keep(one.report.client, one.state)
        return done


def _columns(thing: Any) -> State:
    """All that a fleet file tells, without what is computed from it.

    Checkpoints hold its digest: names and order are those of the first of them, numbers first.
    """
    told = sorted((item for item in fields(thing) if item.init), key=lambda item: not item.metadata)
    values = {_NAMES.get(item.name, item.name): getattr(thing, item.name) for item in told}
    return {k: _columns(v) if is_dataclass(v) else v for k, v in values.items()}


def _instructions(server_round: int, clock_s: float, message: Message) -> Instructions:
    (arrays,) = message.content.array_records.values()
    (config,) = message.content.config_records.values()
    return Instructions(
        server_round,
        clock_s,
        {name: array.numpy() for name, array in arrays.items()},
        proximal_mu=cast(float, config.get("proximal-mu", 0.0)),
    )


def _answer(trained: Trained) -> TrainingAnswer:
    report = trained.report
    if trained.arrays is None:
        return TrainingAnswer(report, None)
    metrics = {WEIGHT: report.examples, "train-loss": report.loss}
    return TrainingAnswer(report, NumpyReply(trained.arrays, metrics))


def join_run(run_id: int) -> Any:
    """Let this process construct messages, and return an empty record of the run.

    From 1.38 on, Flower's runtimes tell each process which task it runs, and ``Message()`` refuses
    to work before that; outside a runtime we have to do it, by a private class. Earlier versions do
    not ask, and have the run's record in another place. An identity that a runtime gave stays.
    """
    try:
        from flwr.supercore.run import Run
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        from flwr.common.typing import Run  # type: ignore[attr-defined,no-redef]

        return Run.create_empty(run_id)
    if TaskIdentity._task_id is None:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Run.create_empty(run_id)
