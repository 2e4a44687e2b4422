"""Runs a federation over a fleet of simulated clients, on their virtual clock."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Message

from client.fleet import Fleet
from server.run_identity import SUPERLINK_NODE_ID, join_run
from server.virtual.clients import Instructions, Trained
from server.virtual.pool import Pool
from server.virtual.workers import trains
from strategies.held import HeldReply
from strategies.run_config import RunConfig
from strategies.selecting import Answer, SelectingStrategy

_FIRST_NODE = SUPERLINK_NODE_ID + 1
_RUN_ID = 1


class VirtualEngine:
    """In place of Flower's loop, grid and messages; everything above them is the same.

    Parameters
    ----------
    config : RunConfig
        The run.
    fleet : Fleet
        All clients.
    """

    def __init__(self, config: RunConfig, fleet: Fleet) -> None:
        join_run(_RUN_ID)
        self._rounds = config.rounds
        self._pool = Pool(config, fleet)
        self._trains = trains(config)

    def run(
        self,
        strategy: SelectingStrategy,
        arrays: ArrayRecord,
        after_round: Callable[[int, ArrayRecord], object],
    ) -> None:
        """All rounds, beginning with the initial model's evaluation as round 0."""
        after_round(0, arrays)
        try:
            for server_round in range(1, self._rounds + 1):
                trained = self._train(strategy, server_round, arrays)
                aggregated, _ = strategy.close(server_round, [_answer(one) for one in trained])
                arrays = arrays if aggregated is None else aggregated
                after_round(server_round, arrays)
        finally:
            self._trains.close()

    def _train(
        self, strategy: SelectingStrategy, server_round: int, arrays: ArrayRecord
    ) -> list[Trained]:
        clock_s = strategy.ledger.clock_s
        assignments = strategy.select(server_round, self._pool.offers(clock_s))
        nodes = [_FIRST_NODE + assignment.client for assignment in assignments]
        messages = strategy.instruct(server_round, arrays, ConfigRecord(), nodes)
        told = next(iter(messages), None)  # all of them share one content
        if told is None:
            return []
        instructions = _instructions(server_round, clock_s, told)
        jobs = [(a, self._pool.state(a.client)) for a in assignments]
        trained = [one for one in self._trains.train(instructions, jobs) if one is not None]
        for one in trained:
            self._pool.keep(one.report.client, one.state)
        return trained


def _instructions(server_round: int, clock_s: float, message: Message) -> Instructions:
    (arrays,) = message.content.array_records.values()
    (config,) = message.content.config_records.values()
    return Instructions(
        server_round,
        clock_s,
        {name: array.numpy() for name, array in arrays.items()},
        proximal_mu=float(config.get("proximal-mu", 0.0)),
    )


def _answer(trained: Trained) -> Answer:
    report = trained.report
    if trained.arrays is None:
        return Answer(report, None)
    metrics = {"num-examples": report.examples, "train-loss": report.loss}
    return Answer(report, HeldReply(trained.arrays, metrics))
