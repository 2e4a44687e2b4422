"""Runs a federation over a fleet of simulated clients, on their virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MessageType

from powerctl.errors import InvalidInput
from wattfed.client.fleet import Fleet
from wattfed.client.worker.pool import Pool
from wattfed.server.engines.workers import (
    ClientJob,
    Clients,
    Done,
    Evaluated,
    Instructions,
    SimulatedRun,
    Trained,
    Trains,
)
from wattfed.server.run.checkpoints import digest_of
from wattfed.server.run.engine import AfterRound, OnPart
from wattfed.server.run.participants import MOST_TOLD, Participants
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RoundOffer
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.strategy import SelectingStrategy, TrainingAnswer
from wattfed.strategies.round.sums import UpdateSum, blocks_of
from wattfed.strategies.round.updates import GlobalModel, training_metrics
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State

SUPERLINK_NODE_ID = 1
_ANY_NODE = SUPERLINK_NODE_ID + 1
_RUN_ID = 1


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
    trainer : Trains, optional
        Trains the clients, and is left open; by default this process does.
    """

    label_noise = "the run's seed"

    def __init__(
        self,
        config: RunConfig,
        fleet: Fleet,
        on_part: OnPart = lambda *_: None,
        trainer: Trains | None = None,
    ) -> None:
        join_run(_RUN_ID)
        self._config = config
        self._fleet = fleet
        self._pool = Pool.of_fleet(config, fleet)
        self._on_part = on_part
        self._trainer = trainer or Clients()
        self._participants: Participants | None = None

    def run(
        self,
        strategy: SelectingStrategy,
        arrays: ArrayRecord,
        after_round: AfterRound,
    ) -> None:
        """All rounds that are not in the strategy's ledger yet."""
        first = len(strategy.ledger.entries) + 1
        self._trainer.begin(SimulatedRun(self._config, self._fleet, self._pool.charge))
        for server_round in range(first, self._config.rounds + 1):
            answers, sums = self._train(strategy, server_round, arrays)
            aggregated, _ = strategy.close(server_round, answers, sums)
            arrays = arrays if aggregated is None else aggregated
            self._evaluate(strategy, server_round, arrays)
            after_round(server_round, arrays)

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Clients are called by their boards."""
        return self._participants_of(offers)

    def plan(self) -> Participants:
        """The clients as the first round will find them, and what speaks against the plan."""
        return self._participants_of(self._pool.offers()).warned(self._config)

    def first_offers(self, clients: Sequence[int]) -> list[RoundOffer]:
        """What some clients, after `plan`, offer for the first round, with their modes."""
        return self._pool.offers_of(clients)

    def _participants_of(self, offers: Offers) -> Participants:
        """What they are does not change from round to round, but for who is unable."""
        unable = self._pool.unable(MOST_TOLD)
        if self._participants is None:
            names, kind = np.unique(self._fleet.device, return_inverse=True)
            boards = np.array([name.removeprefix("twin:") for name in names.tolist()])
            self._participants = Participants.of(offers, boards[kind], unable, self._pool.charged)
        n_unable = len(offers) - int(np.count_nonzero(offers.able))
        return replace(self._participants, unable=unable, n_unable=n_unable)

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
        self, strategy: SelectingStrategy, server_round: int, arrays: ArrayRecord
    ) -> tuple[list[TrainingAnswer], list[UpdateSum]]:
        clock_s = strategy.ledger.clock_s
        assignments = strategy.select(server_round, self._pool.offers(clock_s))
        nodes = [_ANY_NODE] if assignments else []  # all would be told the same
        messages = strategy.instruct(server_round, arrays, ConfigRecord(), nodes)
        told = next(iter(messages), None)
        if told is None:
            return [], []
        (config,) = told.content.config_records.values()
        instructions = Instructions(
            server_round,
            clock_s,
            strategy.aggregation.base,
            proximal_mu=cast(float, config.get("proximal-mu", 0.0)),
            summed=strategy.takes_sums,
            summarised=strategy.takes_summaries,
        )
        assignments = sorted(assignments, key=attrgetter("client"))
        clients = [assignment.client for assignment in assignments]
        states, offers = self._pool.states_of(clients), self._pool.offers_of(clients)
        jobs = [
            ClientJob(assigned.client, state, assigned, offer, most)
            for assigned, state, offer, most in zip(
                assignments, states, offers, map(strategy.most_examples, clients), strict=True
            )
        ]
        done, sums = self._do(instructions, jobs, MessageType.TRAIN)
        return [_answer(one) for one in done if isinstance(one, Trained)], sums

    def _evaluate(
        self, strategy: SelectingStrategy, server_round: int, arrays: ArrayRecord
    ) -> None:
        clients = strategy.evaluators(server_round)
        model = GlobalModel.of(arrays) if clients else GlobalModel({})
        instructions = Instructions(server_round, strategy.ledger.clock_s, model)
        jobs = list(map(ClientJob, clients, self._pool.states_of(clients)))
        done, _ = self._do(instructions, jobs, MessageType.EVALUATE)
        strategy.evaluated((o.report, o.metrics) for o in done if isinstance(o, Evaluated))

    def _do(
        self, instructions: Instructions, jobs: Sequence[ClientJob], what: str
    ) -> tuple[list[Done], list[UpdateSum]]:
        """What came of some jobs, and sums; whoever has come to an end keeps its new state."""
        number = itertools.count(1)

        def ended() -> None:
            self._on_part(what, next(number), len(jobs))

        blocks = self._trainer.do(instructions, blocks_of(jobs), ended) if jobs else []
        done = [one for block in blocks for one in block.done if one is not None]
        for one in done:
            self._pool.keep(one.report.client, one.state)
        return done, [block.total for block in blocks]


def _columns(thing: Any) -> State:
    """All that a fleet file tells, without what is computed from it."""
    values = {item.name: getattr(thing, item.name) for item in fields(thing) if item.init}
    return {k: _columns(v) if is_dataclass(v) else v for k, v in values.items()}


def _answer(trained: Trained) -> TrainingAnswer:
    report, reply = trained.report, None
    if trained.arrays is not None:
        reply = NumpyReply(trained.arrays, training_metrics(report))
    return TrainingAnswer(
        report,
        reply,
        is_summed=trained.is_summed,
        refused=trained.refused,
        summary=trained.summary,
    )


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
