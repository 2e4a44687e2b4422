"""The Flower Strategy that carries any selection policy over any Flower aggregation strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from logging import INFO, WARNING
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from powerctl.errors import InvalidInput
from powerctl.modes import IntArray
from powerctl.reading import in_line
from wattfed.strategies.code_version import CODE, code_version
from wattfed.strategies.evaluation import EvaluationPlan, numbers_of, weighted
from wattfed.strategies.offers import WEIGHT_CAP, Offers
from wattfed.strategies.policy import ObservesUpdates, SelectionPolicy, observes_updates
from wattfed.strategies.protocol import (
    ARRAYS,
    CLOCK,
    CONFIG,
    METRICS,
    PROTOCOL,
    ROUND,
    VERSION,
    EvaluationReport,
    RoundAssignment,
    RoundReport,
    decode_record,
    encode_record,
)
from wattfed.strategies.round.aggregation import Aggregation
from wattfed.strategies.round.in_flight import (
    ClosedRound,
    InFlightUpdate,
    InFlightUpdates,
    in_flight_of,
    replies_to_aggregate,
    silence_s,
    state_of_in_flight,
)
from wattfed.strategies.round.ledger import Ledger, RefusedReply, RoundEntry
from wattfed.strategies.round.nodes import QueriedOffers, Roster
from wattfed.strategies.round.sums import UpdateSum, blocks_of
from wattfed.strategies.round.updates import ClientUpdate, Reply, training_metrics, weighed
from wattfed.strategies.round_policy import RoundPolicy
from wattfed.strategies.state import State, lacks_state, memory_of
from wattfed.strategies.summaries import UpdateSummary

Report = TypeVar("Report", RoundReport, EvaluationReport)


@dataclass(frozen=True)
class TrainingAnswer:
    """What came of an assignment: the client's report, and the reply that carries its arrays.

    Without minibatches there need not be a reply, nor where the update is in the sum of its block
    (`is_summed`), or was `refused` where that was to be made; in a simulation there is no node.
    Of one that is summed there is a `summary` where the policy asks for it.
    """

    report: RoundReport
    reply: Reply | None = None
    node: int | None = None
    is_summed: bool = False
    refused: str = ""
    summary: UpdateSummary | None = None


class SelectingStrategy(Strategy):
    """Lets a policy select among offers, and aggregates the answers in a fixed order.

    On Flower's runtimes, `start` queries the offers by messages. The engine of the virtual clock
    calls `select`, `instruct` and `close` itself, with offers that it holds as arrays.

    Parameters
    ----------
    policy : SelectionPolicy or ObservesUpdates
        Who trains, by when, with how much work.
    aggregation : Aggregation
        Any of Flower's strategies in it; it builds the training messages (so that FedProx adds its
        parameter) and aggregates the replies.
    per_round : int
        Clients wanted in a round.
    round_policy : RoundPolicy, optional
        When rounds close, and what becomes of late updates.
    evaluation : EvaluationPlan, optional
        Who evaluates after a round; by default no client does.
    weight_cap : float
        Nobody's examples count for more than so many medians of a round's offers, in the selection,
        in aggregates and in the clients' metrics; 0 counts what is told.
    seed : int
        Of the policy's randomness; each round has a stream of its own.
    timeout_s : float
        Wall-clock seconds to wait for the offers.
    on_assigned : callable, optional
        Called with a round's number, assignments and offers before it begins.
    on_round : callable, optional
        Called with each round's ledger entry.

    Attributes
    ----------
    ledger : Ledger
        Time and energy of all rounds, and all reports.
    client_metrics : dict of str to float
        What clients found of the last round's model; empty where none evaluated it.
    node_of_client : dict of int to int
        On Flower's runtimes, the nodes whose offers came for the last round.
    rate : float
        Factor on the learning rate of whoever trains.
    fruitless : int
        Rounds in a row in which clients trained, and no model came of it.
    """

    def __init__(
        self,
        policy: SelectionPolicy | ObservesUpdates,
        aggregation: Aggregation,
        *,
        per_round: int,
        round_policy: RoundPolicy | None = None,
        evaluation: EvaluationPlan | None = None,
        weight_cap: float = WEIGHT_CAP,
        seed: int = 0,
        timeout_s: float = 600.0,
        on_assigned: Callable[[int, Sequence[RoundAssignment], Offers], None] | None = None,
        on_round: Callable[[RoundEntry], None] | None = None,
    ) -> None:
        self.policy, self._memory = policy, memory_of(policy)
        self.aggregation = aggregation
        self.per_round = per_round
        self.round_policy = round_policy or RoundPolicy()
        self.evaluation = evaluation
        self.client_metrics: dict[str, float] = {}
        self.weight_cap = weight_cap
        self.seed = seed
        self.on_assigned = on_assigned
        self.on_round = on_round
        self.ledger = Ledger()
        self._roster = Roster()
        self._queried = QueriedOffers(self._roster, timeout_s)
        self._in_flight = InFlightUpdates(self.round_policy)
        self._assignments: list[RoundAssignment] = []
        self._sent: list[tuple[Message, int]] = []
        self._able: IntArray = np.zeros(0, dtype=np.int64)
        self._most_examples = math.inf
        self._examples: dict[int, int] = {}
        self._others_w = 0.0
        self.rate = 1.0
        self.fruitless = 0
        self._instead: ArrayRecord | None = None
        self.node_of_client: dict[int, int] = {}
        self._rounds_before = 0
        self._answered_s: Mapping[str, float] = {}

    def called(self, client: int) -> str:
        """What a client is called on Flower's runtimes: by its node's name, or its number."""
        node = self.node_of_client[client]
        return self._roster.name_of(node) or f"node {node}"

    @property
    def takes_sums(self) -> bool:
        """Whether a round's updates may be summed in blocks before it closes."""
        return self.aggregation.takes_sums and self.round_policy.waits_for_all

    @property
    def takes_summaries(self) -> bool:
        """Whether the policy asks for summaries of updates."""
        return observes_updates(self.policy)

    @property
    def declined(self) -> dict[int, str]:
        """Why clients cannot take part, as they said last on Flower's runtimes."""
        return self._queried.declined

    @property
    def charged(self) -> dict[int, str]:
        """What clients are charged as, as they said last on Flower's runtimes."""
        return self._queried.charged

    @property
    def lacks_state(self) -> str:
        """Why policy or aggregation cannot go on from a checkpoint; empty if they can."""
        return lacks_state(self.policy) or self.aggregation.lacks_state

    def state(self) -> State:
        """What it has come to between two rounds, but for the ledger; each round draws anew."""
        return {
            "policy": self._memory.state(),
            "aggregation": self.aggregation.memory.state(),
            "flights": state_of_in_flight(self._in_flight.under_way),
            "evaluation": [self.ledger.evaluation_s, self.ledger.evaluation_j],
            "back": {
                "rate": self.rate,
                "fruitless": self.fruitless,
                "model": self._instead,
            },
        }

    def restore(self, state: State, ledger: Ledger) -> None:
        """Go on from the state and the ledger of another; `start` then numbers rounds from 1 on.

        Raises
        ------
        InvalidInput
            If policy or aggregation are of another kind, or of other code.
        """
        self._memory.restore(state["policy"])
        self.aggregation.memory.restore(state["aggregation"])
        self._in_flight.under_way = in_flight_of(state["flights"], self.aggregation.parameters)
        self.ledger = ledger
        ledger.evaluation_s, ledger.evaluation_j = state.get("evaluation", (0, 0))
        if back := state.get("back"):
            self.rate, self.fruitless = float(back["rate"]), int(back["fruitless"])
            self._instead = back["model"]
        self._rounds_before = len(ledger.entries)

    def go_back(self, arrays: ArrayRecord) -> None:
        """Begin the next round with another model, and learn a quarter as fast from then on."""
        self._instead, self.rate, self.fruitless = arrays, self.rate / 4, 0

    def select(self, server_round: int, offers: Offers) -> list[RoundAssignment]:
        """Who trains in a round that starts now; nobody who still does."""
        busy = self._in_flight.clients
        offers, self._most_examples = offers.capped(self.weight_cap)
        self._able = offers.client[offers.able]
        k = self.round_policy.to_ask(self.per_round, len(busy))
        rng = np.random.default_rng((self.seed, server_round))
        free = offers.without(busy)
        chosen = self.policy.select(free, k, server_round, rng) if k else []
        self._assignments = [replace(one, rate=self.rate) for one in chosen]
        rows = np.searchsorted(offers.client, [a.client for a in self._assignments])
        there = offers.available_s > 0
        there[rows] = False
        if busy:
            there &= ~np.isin(offers.client, list(busy))
        self._others_w = float(offers.idle_supply_w[there].sum())
        self._examples = dict(zip(offers.client[rows], offers.examples[rows].tolist(), strict=True))
        if self.on_assigned is not None:
            self.on_assigned(server_round, self._assignments, offers)
        return self._assignments

    def instruct(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, nodes: Sequence[int]
    ) -> Iterable[Message]:
        """The aggregation's training messages to some nodes; all share one content."""
        # The aggregation is told the model also where nobody is asked: late updates may come.
        selected = cast(Grid, _OnlyNodes(nodes or [0]))
        arrays = arrays if self._instead is None else self._instead
        messages = self.aggregation.configure_train(server_round, arrays, config, selected)
        return messages if nodes else []

    def close(
        self,
        server_round: int,
        answers: Iterable[TrainingAnswer],
        sums: Sequence[UpdateSum] = (),
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """End a round: the books, the policy's lessons, and the new model from what has come.

        Parameters
        ----------
        server_round : int
            Its number.
        answers : iterable of TrainingAnswer
            What came of the assignments.
        sums : sequence of UpdateSum
            Of the updates that are summed already, by blocks.

        Returns
        -------
        tuple of (ArrayRecord or None, MetricRecord or None)
            Arrays and metrics as the aggregation gives them; None if no update counts.
        """
        answers = sorted(map(self._weighed, answers), key=lambda answer: answer.report.client)
        reports = [answer.report for answer in answers]
        rejected = []
        for answer, report in zip(answers, reports, strict=True):
            if report.lost or not report.minibatches:
                continue
            update = None
            try:
                update = self._update_of(answer)
                if answer.node is not None:
                    self._roster.accept(answer.node, MessageType.TRAIN)
            except InvalidInput as error:
                rejected.append(report)
                reason = f"update refused: {error}"
                self._refuse(MessageType.TRAIN, server_round, answer.node, report.client, reason)
            self._in_flight.start(server_round, report, update, answer.is_summed)
        waits_s = silence_s(self._assignments, reports)
        closed = self._in_flight.close(server_round, len(self._assignments), waits_s)
        entry = self.ledger.record(
            server_round, self._assignments, reports, rejected, closed, self._others_w
        )
        heard = [r for r in self.ledger.reports_of(server_round) if not r.lost]
        self._tell(heard, answers, closed)
        result: tuple[ArrayRecord | None, MetricRecord | None] = (None, None)
        used = [flight for flight in closed.arrived if flight.counts]
        if used:
            result = self._aggregated(server_round, used, sums)
            if result[0] is None:  # without a quorum, or not finite
                entry = self.ledger.waste([flight.report for flight in used])
        if result[0] is not None:
            self.fruitless = 0
        elif used or rejected or entry.failed:
            self.fruitless += 1
        if self._instead is not None:  # also where nobody has moved it
            entry = self.ledger.went_back()
            result = (result[0] or self._instead, result[1])
            self._instead = None
        if self.on_round is not None:
            self.on_round(entry)
        return result

    def _tell(
        self, heard: list[RoundReport], answers: Iterable[TrainingAnswer], closed: ClosedRound
    ) -> None:
        """Let the policy learn: from reports, and from the updates that count where it asks."""
        if not self.takes_summaries:
            cast(SelectionPolicy, self.policy).observe(heard)
            return
        made = {a.report.client: a.summary for a in answers if a.summary is not None}
        for flight in closed.arrived:
            if flight.update is not None:
                made[flight.report.client] = flight.update.summary()
        summaries = self.aggregation.clipped(made)
        cast(ObservesUpdates, self.policy).observe(heard, summaries)

    def _update_of(self, answer: TrainingAnswer) -> ClientUpdate | None:
        """The update that a reply carries, if it is sound; None where it is summed already."""
        if answer.is_summed:
            return None
        if answer.reply is None:
            raise InvalidInput(answer.refused or "it sent no arrays")
        return self.aggregation.base.update(answer.reply, training_metrics(answer.report))

    def _aggregated(
        self, server_round: int, used: Sequence[InFlightUpdate], sums: Sequence[UpdateSum]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the aggregation makes of updates that have come, or of their sums."""
        if not self.takes_sums:
            replies = replies_to_aggregate(used, self.aggregation.base, self.round_policy.late)
            return self.aggregation.aggregate_train(server_round, replies)
        if not sums:
            came = {flight.report.client: flight.update for flight in used}
            blocks = blocks_of(sorted(a.client for a in self._assignments))
            updates = ([came[c] for c in block if c in came] for block in blocks)
            sums = [self.aggregation.sum_of(filter(None, block)) for block in updates]
        return self.aggregation.aggregate_sums(server_round, sums)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Query the offers, select, and build one message per selected client."""
        server_round += self._rounds_before
        config[ROUND], config[CLOCK] = server_round, self.ledger.clock_s
        config[PROTOCOL], config[CODE] = VERSION, code_version()
        self._answered_s = getattr(grid, "answered_s", {})
        refuse = partial(self._refuse, MessageType.QUERY, server_round)
        nodes = self._roster.to_ask(grid, server_round)
        found = self._queried.collect(grid, config, nodes, refuse)
        offers = self._roster.admitted(found, refuse)
        for node in offers:
            self._roster.accept(node, MessageType.QUERY)
        self._queried.tell_who_is_unable(offers.values())
        self.node_of_client = {offer.client: node for node, offer in offers.items()}
        assignments = self.select(server_round, Offers.of(list(offers.values())))
        assigned = {self.node_of_client[a.client]: a for a in assignments}
        drafts = self.instruct(server_round, arrays, config, list(assigned))
        self._sent = [
            (_with_assignment(draft, assignment), assignment.client)
            for draft in drafts
            for assignment in [assigned[draft.metadata.dst_node_id]]
        ]
        return [message for message, _ in self._sent]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Read the reports, and close the round."""
        server_round += self._rounds_before
        reports = self._reports(RoundReport, MessageType.TRAIN, server_round, replies)
        answers = [
            TrainingAnswer(self._timed(report, reply), reply, node)
            for node, report, reply in reports
        ]
        for client, lost in ((one.report.client, one.report.lost) for one in answers):
            if lost:
                log(WARNING, "%s lost its round: %s", self._roster.client(client), lost)
        return self.close(server_round, answers)

    def _timed(self, report: RoundReport, reply: Message) -> RoundReport:
        """A report with how long its reply took, as far as the grid tells it."""
        waited_s = self._answered_s.get(reply.metadata.reply_to_message_id)
        if waited_s is None or report.answered_s:  # a simulated client has said it
            return report
        return replace(report, answered_s=waited_s)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The global model to those who evaluate it; none where the server does that alone."""
        server_round += self._rounds_before
        config[ROUND], config[CLOCK] = server_round, self.ledger.clock_s
        config[PROTOCOL], config[CODE] = VERSION, code_version()
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        self._sent = [
            (Message(content, self.node_of_client[client], MessageType.EVALUATE), client)
            for client in self.evaluators(server_round)
        ]
        return [message for message, _ in self._sent]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The clients' metrics, weighted by their examples."""
        server_round += self._rounds_before
        found = []
        for node, report, reply in self._reports(
            EvaluationReport, MessageType.EVALUATE, server_round, replies
        ):
            self._roster.accept(node, MessageType.EVALUATE)
            metrics = reply.content.metric_records.get(METRICS, MetricRecord())
            found.append((report, metrics))
        self.evaluated(found)
        return MetricRecord({**self.client_metrics}) if self.client_metrics else None

    def evaluators(self, server_round: int) -> list[int]:
        """Who evaluates the model after a round: of those who could begin it, who do not train."""
        if self.evaluation is None:
            return []
        free = self._able[~np.isin(self._able, list(self._in_flight.clients))]
        return self.evaluation.who(free, self.seed, server_round)

    def evaluated(self, replies: Iterable[tuple[EvaluationReport, Mapping[str, Any]]]) -> None:
        """Enter what those who were to evaluate have found."""
        counted = {}
        for report, metrics in replies:
            examples = int(min(report.examples, self._most_examples))
            counted[report.client] = (replace(report, examples=examples), metrics)
            if report.decline:
                who = self._roster.client(report.client)
                log(INFO, "%s does not evaluate: %s", who, report.decline)
        told = [counted[client] for client in sorted(counted)]
        self.ledger.evaluated([report for report, _ in told])
        self.client_metrics = weighted(
            (report, numbers_of(metrics)) for report, metrics in told if not report.decline
        )

    def summary(self) -> None:
        """Log the policy and the aggregation in force."""
        log(INFO, "selection: %s, %s clients a round", self.policy, self.per_round)
        log(INFO, "aggregation: %s", self.aggregation)

    def _reports(
        self, kind: type[Report], message_type: str, server_round: int, replies: Iterable[Message]
    ) -> Iterator[tuple[int, Report, Message]]:
        """Node, report and reply of those that were asked, once each; others are refused."""
        asked = {m.metadata.message_id: (m.metadata.dst_node_id, c) for m, c in self._sent}
        for reply in replies:
            node, answered = reply.metadata.src_node_id, reply.metadata.reply_to_message_id
            whom = asked.get(answered)
            if reply.has_error():  # for a dead node it is the SuperLink that answers
                who = self._roster.node(node) if whom is None else self._roster.client(whom[1])
                log(WARNING, "%s failed: %s", who, in_line(reply.error.reason, 1000))
                continue
            refuse = partial(self._refuse, message_type, server_round, node)
            if whom is None or whom[0] != node:
                reason = "a late, repeated or uncalled-for reply"
                refuse(self._roster.client_of(node), reason)
                continue
            del asked[answered]
            try:
                report = decode_record(kind, reply.content.config_records.get(CONFIG, {}))
            except InvalidInput as error:
                refuse(whom[1], str(error))
                continue
            if report.client != whom[1]:
                refuse(whom[1], f"it reports as client {report.client}")
                continue
            yield node, report, reply

    def most_examples(self, client: int) -> float:
        """Examples that an update of a client counts for at most: those that it has offered."""
        return self._examples.get(client, self._most_examples)

    def _weighed(self, answer: TrainingAnswer) -> TrainingAnswer:
        """An answer with no more examples than its client has offered."""
        report = weighed(answer.report, self.most_examples(answer.report.client))
        return answer if report is answer.report else replace(answer, report=report)

    def _refuse(
        self, message_type: str, server_round: int, node: int | None, client: int | None, why: str
    ) -> None:
        """Enter that a reply does not count; that costs its sender, and nobody else."""
        name = "" if node is None else self._roster.name_of(node)
        refusal = RefusedReply(server_round, node, client, why, name)
        log(WARNING, "%s", refusal)
        self.ledger.refusals.append(refusal)
        if node is not None:
            self._roster.refuse(node, message_type, server_round)


class _OnlyNodes:
    """The one part of a grid that Flower's strategies draw from, reduced to some nodes."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        return self._nodes


def _with_assignment(draft: Message, assignment: RoundAssignment) -> Message:
    """A message of its own for one client: Flower's drafts share one content among all."""
    config = ConfigRecord({**draft.content.config_records[CONFIG], **encode_record(assignment)})
    return Message(
        RecordDict({**draft.content, CONFIG: config}),
        draft.metadata.dst_node_id,
        draft.metadata.message_type,
        group_id=draft.metadata.group_id,
    )
