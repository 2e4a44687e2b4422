"""Rounds over Flower's grid: of a SuperLink, or of the Simulation Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from wattfed.server.run.engine import AfterRound, OnPart
from wattfed.server.run.federation import NoClients, check, run_rounds, task_of
from wattfed.server.run.history import FederationResult, RoundRow
from wattfed.server.run.participants import Participants
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RUN, TASK
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.state import State

_LONGEST_PAUSE_S = 3.0


def run_federation(
    grid: Grid,
    config: RunConfig,
    on_row: Callable[[RoundRow], None] | None = None,
    on_plan: Callable[[Participants], None] | None = None,
) -> FederationResult:
    """Train over the clients of a grid; evaluate, keep the books and save after each round.

    The run ends after its last round, or the first one that reaches its goal.

    Parameters
    ----------
    grid : Grid
        Flower's grid: of a SuperLink, or of the Simulation Runtime.
    config : RunConfig
        The run.
    on_row : callable, optional
        Called with the initial model's row and after each round; first with the last row there
        is, where a run goes on.
    on_plan : callable, optional
        Called once with the clients and what speaks against the plan, before its first round.

    Raises
    ------
    NoClients
        If too few nodes come within the time-out, no client took part in any round, or every update
        was refused.
    InvalidInput
        If the run is to go on from a checkpoint that is damaged, or of another configuration.
    UnknownName
        If the evaluation does not give the metric that the run is to be judged by.
    """
    check(config)
    _await_nodes(grid, config.min_nodes, config.timeout_s)
    return run_rounds(FlowerEngine(grid, config), config, on_row, on_plan)


def _await_nodes(grid: Grid, wanted: int, timeout_s: float) -> None:
    give_up = time.monotonic() + timeout_s
    while (present := len(list(grid.get_node_ids()))) < wanted:
        if time.monotonic() > give_up:
            raise NoClients(
                f"{present} of {wanted} nodes came within {timeout_s:g} s; start SuperNodes, or "
                "lower min-nodes"
            )
        time.sleep(0.2)


class FlowerEngine:
    """Flower's own loop and messages; what clients keep, their nodes keep.

    Nodes are told the Flower run in which the federation began, by which agents keep accounts.

    Parameters
    ----------
    grid : Grid
        Of a SuperLink, or of the Simulation Runtime.
    config : RunConfig
        The run.
    """

    label_noise = "the operating system on nodes with a device or an agent, else the run's seed"

    def __init__(self, grid: Grid, config: RunConfig) -> None:
        self._grid = grid
        self._config = config
        self._run_id = str(grid.run.run_id)
        self._task_hash = task_of(config).code_hash

    def run(
        self, strategy: SelectingStrategy, arrays: ArrayRecord, after_round: AfterRound
    ) -> object:
        """The rounds that are left, which Flower numbers from 1."""
        before = len(strategy.ledger.entries)

        def evaluate_fn(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            return after_round(before + server_round, arrays) if server_round else None

        return strategy.start(
            self._grid,
            arrays,
            num_rounds=self._config.rounds - before,
            timeout=self._config.timeout_s,
            train_config=ConfigRecord({RUN: self._run_id, TASK: self._task_hash}),
            evaluate_config=ConfigRecord({RUN: self._run_id, TASK: self._task_hash}),
            evaluate_fn=evaluate_fn,
        )

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Clients are called as their nodes are, and have said themselves why they decline."""
        clients = offers.client.tolist()
        nodes = [strategy.node_of_client[client] for client in clients]
        names = list(map(strategy.called, clients))
        charged = [strategy.charged[client] for client in clients]
        return Participants.of(offers, names, strategy.declined, charged, nodes)

    def state(self) -> State:
        """The Flower run in which it began."""
        return {RUN: self._run_id}

    def restore(self, state: State) -> None:
        """Take over from another Flower run."""
        self._run_id = state[RUN]


class SteadyGrid:
    """A Flower grid whose time-outs do not move with the time of day.

    Flower's own grids wait until a time of day: where the clock is set forward (as by the first
    NTP answer after a start), a round would end at once, and where it is set back, hours late.

    Parameters
    ----------
    grid : Grid
        What sends and receives.
    on_part : callable, optional
        Told of each wait: the kind of its messages, and how many of how many are answered.

    Attributes
    ----------
    answered_s : dict of str to float
        How long the replies took that came in the last wait, by the messages that they answer.
    """

    def __init__(self, grid: Grid, on_part: OnPart = lambda *_: None) -> None:
        self._grid = grid
        self._on_part = on_part
        self.answered_s: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and wait for their replies; those that came when the time is over.

        Parameters
        ----------
        messages : iterable of Message
            To their nodes.
        timeout : float, optional
            Seconds to wait; None waits for all.
        """
        messages = list(messages)
        kind = messages[0].metadata.message_type if messages else ""
        missing = set(self._grid.push_messages(messages))
        replies: list[Message] = []
        began_s = time.monotonic()
        self.answered_s.clear()
        if messages:
            self._on_part(kind, 0, len(messages))
        while True:
            came = list(self._grid.pull_messages(missing))
            replies += came
            waited_s = time.monotonic() - began_s
            answered = {reply.metadata.reply_to_message_id for reply in came}
            self.answered_s |= dict.fromkeys(answered, waited_s)
            missing -= answered
            if came:
                self._on_part(kind, len(replies), len(messages))
            if not missing or (timeout is not None and waited_s >= timeout):
                return replies
            time.sleep(min(0.1 + waited_s / 10, _LONGEST_PAUSE_S))
