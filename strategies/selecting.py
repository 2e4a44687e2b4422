"""The Flower Strategy that carries any selection policy over any Flower aggregation strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import INFO, WARNING
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from powerctl.errors import InvalidInput
from powerctl.rounds import RoundAssignment, RoundOffer, RoundReport
from strategies.code_version import CODE, code_version
from strategies.ledger import Ledger, RoundEntry
from strategies.offers import Offers
from strategies.policy import SelectionPolicy
from strategies.records import ASSIGNMENT, CONFIG, OFFER, REPORT, decode, encode


class SelectingStrategy(Strategy):
    """Queries offers, lets a policy select, and aggregates the replies in a fixed order.

    Parameters
    ----------
    policy : SelectionPolicy
        Who trains, by when, with how much work.
    aggregation : FedAvg
        Any of Flower's strategies; it builds the training messages (so that FedProx adds its
        parameter) and aggregates the replies.
    per_round : int
        Clients wanted in a round.
    seed : int
        Of the policy's randomness; each round has a stream of its own.
    timeout_s : float
        Wall-clock seconds to wait for the offers.
    on_round : callable, optional
        Called with each round's ledger entry.

    Attributes
    ----------
    ledger : Ledger
        Time and energy of all rounds, and all reports.
    """

    def __init__(
        self,
        policy: SelectionPolicy,
        aggregation: FedAvg,
        *,
        per_round: int,
        seed: int = 0,
        timeout_s: float = 600.0,
        on_round: Callable[[RoundEntry], None] | None = None,
    ) -> None:
        self.policy = policy
        self.aggregation = aggregation
        self.per_round = per_round
        self.seed = seed
        self.timeout_s = timeout_s
        self.on_round = on_round
        self.ledger = Ledger()
        self._assignments: list[RoundAssignment] = []
        self._sent: list[tuple[Message, int]] = []
        self._shapes: dict[str, tuple[int, ...]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Query the offers, select, and build one message per selected client."""
        config["server-round"] = server_round
        offers = self._collect_offers(grid, config)
        rng = np.random.default_rng((self.seed, server_round))
        self._assignments = self.policy.select(
            Offers.of(list(offers.values())), self.per_round, server_round, rng
        )
        node_of_client = {offer.client: node for node, offer in offers.items()}
        assigned = {node_of_client[a.client]: a for a in self._assignments}
        self._shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        self._sent = []
        if assigned:
            selected = cast(Grid, _OnlyNodes(list(assigned)))
            drafts = self.aggregation.configure_train(server_round, arrays, config, selected)
            self._sent = [
                (_with_assignment(draft, assignment), assignment.client)
                for draft in drafts
                for assignment in [assigned[draft.metadata.dst_node_id]]
            ]
        return [message for message, _ in self._sent]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check, order and aggregate the replies; enter the round into the ledger."""
        reports: list[RoundReport] = []
        updates: list[tuple[int, Message]] = []
        rejected = 0
        for reply in replies:
            report = self._report(reply)
            if report is None:
                continue
            reports.append(report)
            if report.minibatches and self._is_sound(reply):
                updates.append((report.client, reply))
            elif report.minibatches:
                rejected += 1
                log(
                    WARNING,
                    "update of client %s rejected: not finite, or wrong shapes",
                    report.client,
                )
        reports.sort(key=lambda report: report.client)
        updates.sort(key=lambda update: update[0])
        self.policy.observe(reports)
        entry = self.ledger.record(server_round, self._assignments, reports, rejected)
        result: tuple[ArrayRecord | None, MetricRecord | None] = (None, None)
        if updates:
            messages = [message for _, message in updates]
            result = self.aggregation.aggregate_train(server_round, messages)
        if self.on_round is not None:
            self.on_round(entry)
        return result

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No messages: the server evaluates centrally, so that clients keep their energy."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing to aggregate."""
        return None

    def summary(self) -> None:
        """Log the policy and the aggregation in force."""
        log(INFO, "\t├──> Selection: %s, %s clients a round", self.policy, self.per_round)
        log(INFO, "\t└──> Aggregation: %s", type(self.aggregation).__name__)

    def _collect_offers(self, grid: Grid, config: ConfigRecord) -> dict[int, RoundOffer]:
        """The offers by node; nodes that fail or stay silent are logged and left out."""
        content = RecordDict({CONFIG: ConfigRecord({**config, CODE: code_version()})})
        queries = [Message(content, node, MessageType.QUERY) for node in grid.get_node_ids()]
        offers = {}
        for reply in grid.send_and_receive(queries, timeout=self.timeout_s):
            if reply.has_error():
                log(WARNING, "a node made no offer: %s", reply.error.reason)
                continue
            try:
                offer = decode(RoundOffer, reply.content.config_records[OFFER])
            except (InvalidInput, KeyError) as error:
                log(WARNING, "node %s made no valid offer: %s", reply.metadata.src_node_id, error)
                continue
            offers[reply.metadata.src_node_id] = offer
        return offers

    def _report(self, reply: Message) -> RoundReport | None:
        """The report of a reply; None, with the client named in the log, if there is none."""
        if reply.has_error():
            log(WARNING, "client %s failed: %s", self._client_of(reply), reply.error.reason)
            return None
        try:
            return decode(RoundReport, reply.content.config_records[REPORT])
        except (InvalidInput, KeyError) as error:
            log(WARNING, "client %s sent no report: %s", self._client_of(reply), error)
            return None

    def _client_of(self, reply: Message) -> int | str:
        """Which client a reply is from, also where the SuperLink answers for a dead node."""
        answered = reply.metadata.reply_to_message_id
        for message, client in self._sent:
            if answered and message.metadata.message_id == answered:
                return client
        return f"of node {reply.metadata.src_node_id}"

    def _is_sound(self, reply: Message) -> bool:
        """Whether an update has the model's shapes and finite numbers only."""
        records = list(reply.content.array_records.values())
        if len(records) != 1 or set(records[0]) != set(self._shapes):
            return False
        return all(
            tuple(array.shape) == self._shapes[name] and bool(np.isfinite(array.numpy()).all())
            for name, array in records[0].items()
        )


class _OnlyNodes:
    """The one part of a grid that Flower's strategies draw from, reduced to some nodes."""

    def __init__(self, nodes: list[int]) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        return self._nodes


def _with_assignment(draft: Message, assignment: RoundAssignment) -> Message:
    """A message of its own for one client: Flower's drafts share one content among all."""
    return Message(
        RecordDict({**draft.content, ASSIGNMENT: encode(assignment)}),
        draft.metadata.dst_node_id,
        draft.metadata.message_type,
        group_id=draft.metadata.group_id,
    )
