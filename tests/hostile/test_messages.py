"""One client lies in each round: the others make the model, and the lie is a line in the books."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.in_process_grid import InProcessGrid
from tests.hostile.attacks import BYTES, OFFERS, REPORTS, WEIGHTS, offered, trained
from tests.strategies.offers_of import offer, report
from wattfed.strategies.evaluation import EvaluationPlan
from wattfed.strategies.policies.catalogue import make_policy
from wattfed.strategies.protocol import CONFIG, METRICS, EvaluationReport, encode_record
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.nodes import IN_A_ROW, REST_ROUNDS
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

N, LIAR = 6, 3
FORGED = "hot\nERROR: all is lost" + "x" * 10_000
START = [np.zeros(4, dtype=np.float32)]
app = ClientApp()


def attack_of(context: Context, message: Message) -> str:
    """What this client does in this round; honest ones do nothing."""
    if context.node_config["partition-id"] != LIAR:
        return ""
    told = context.run_config
    return told.get(f"attack-{message.content[CONFIG]['server-round']}", told.get("attack", ""))


@app.query()
def query(message: Message, context: Context) -> Message:
    attack, client = attack_of(context, message), context.node_config["partition-id"]
    if attack == "an-error-in-an-offer":
        return Message(Error(2, FORGED), reply_to=message)
    changes = {"examples": 10**9, "label_counts": (1e9,) * 4} if attack == "dominates" else {}
    record = offered(attack, encode_record(offer(client, n_clients=N, **changes)))
    return Message(RecordDict({CONFIG: record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    attack, client = attack_of(context, message), context.node_config["partition-id"]
    if attack == "an-error":
        return Message(Error(2, FORGED), reply_to=message)
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    lies = {"examples": 10**9} if attack == "dominates" else {}
    moved = weights - 1000 if attack and attack not in WEIGHTS else weights + 1
    content = trained(attack, encode_record(report(client, **lies)), moved.astype(np.float32))
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    attack, client = attack_of(context, message), context.node_config["partition-id"]
    told = EvaluationReport(client, 10**9 if attack else 160)
    content = RecordDict({CONFIG: ConfigRecord(encode_record(told))})
    content[METRICS] = MetricRecord({"loss": 100.0 if attack else 1.0})
    return Message(content, reply_to=message)


def run(attack="", rounds=1, policy="all", attacks=(), grid=None, **options):
    """A strategy after some rounds, and the first number of its model (honest: one a round)."""
    config = RunConfig(strategy=policy, **options)
    strategy = SelectingStrategy(
        make_policy(config), make_aggregation(config), per_round=N, weight_cap=config.weight_cap
    )
    in_turn = {f"attack-{n}": name for n, name in enumerate(attacks, start=1)}
    grid = grid or InProcessGrid(app, N, {"attack": attack, **in_turn})
    result = strategy.start(grid, ArrayRecord(START), num_rounds=rounds)
    return strategy, float(result.arrays.to_numpy_ndarrays()[0][0])


def test_without_a_liar_nothing_is_refused():
    strategy, model = run(rounds=2)
    assert model == 2 and strategy.ledger.refusals == []


@pytest.mark.parametrize("attack", OFFERS)
def test_an_offer_that_cannot_be_costs_its_sender_the_round(attack, caplog):
    strategy, model = run(attack)
    (entry,), (refusal,) = strategy.ledger.entries, strategy.ledger.refusals
    assert model == 1 and LIAR not in entry.clients and entry.reported == N - 1
    assert (refusal.round, refusal.node) == (1, LIAR + 2) and refusal.reason
    assert len(str(refusal)) < 300 and str(refusal) in caplog.text


@pytest.mark.parametrize("policy", ["pace", "oort", "tifl", "eafl", "haccs", "refl"])
def test_no_policy_makes_room_by_a_number_that_a_client_tells(policy):
    strategy, model = run("number-beyond-all", policy=policy)
    assert model == 1 and len(strategy.ledger.refusals) == 1


@pytest.mark.parametrize("attack", REPORTS)
def test_a_report_that_cannot_be_or_is_anothers_costs_its_sender_the_round(attack):
    strategy, model = run(attack)
    (entry,), (refusal,) = strategy.ledger.entries, strategy.ledger.refusals
    assert model == 1 and (entry.reported, entry.failed) == (N - 1, 1)
    assert (refusal.node, refusal.client) == (LIAR + 2, LIAR)


@pytest.mark.parametrize("aggregation", ["fedavg", "fedmedian", "fedadam"])
@pytest.mark.parametrize("attack", BYTES)
def test_arrays_that_are_not_the_models_are_left_out(attack, aggregation):
    strategy, model = run(attack, aggregation=aggregation)
    (entry,), (refusal,) = strategy.ledger.entries, strategy.ledger.refusals
    assert model == run(aggregation=aggregation)[1] and entry.rejected == 1
    assert (refusal.node, refusal.client) == (LIAR + 2, LIAR)


@pytest.mark.parametrize(
    "aggregation", ["fedavg", "fedmedian", "fedtrimmedavg", "fedprox", "fedadam"]
)
@pytest.mark.parametrize("attack", WEIGHTS)
def test_the_weight_that_a_client_sends_counts_for_nothing(attack, aggregation):
    strategy, model = run(attack, aggregation=aggregation)
    assert model == run(aggregation=aggregation)[1] and strategy.ledger.refusals == []


@pytest.mark.parametrize("attack", ["an-error", "an-error-in-an-offer"])
def test_an_error_of_a_client_stays_in_its_line(attack, caplog):
    _, model = run(attack)
    (line,) = [r.getMessage() for r in caplog.records if "all is lost" in r.getMessage()]
    assert model == 1 and line.isprintable() and len(line) < 1100


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}], ids=["plain", "clipped"])
def test_examples_beyond_measure_count_for_five_medians(options):
    _, free = run("dominates", weight_cap=0.0)
    assert free < -999
    strategy, model = run("dominates", **options)
    liars = strategy.ledger.reports_of(1)[LIAR].examples
    assert liars == 5 * 160
    moved = -1 if options else -1000  # clipped to the others' length
    assert model == pytest.approx((5 * moved + 5) / 10, abs=1e-3)


def test_a_node_keeps_the_examples_that_it_told_first():
    strategy, model = run(attacks=["", "dominates"], rounds=2, weight_cap=0.0)
    assert [strategy.ledger.reports_of(n)[LIAR].examples for n in (1, 2)] == [160, 160]
    assert model == pytest.approx(1 + (5 - 1000) / 6, rel=1e-6)


def test_what_clients_evaluate_is_weighed_alike():
    strategy = SelectingStrategy(
        make_policy(RunConfig(strategy="all")),
        make_aggregation(RunConfig()),
        per_round=N,
        evaluation=EvaluationPlan("clients", share=1.0),
    )
    strategy.start(InProcessGrid(app, N, {"attack": "e"}), ArrayRecord(START), num_rounds=1)
    assert strategy.client_metrics["loss"] == pytest.approx((5 * 100 + 5 * 1) / 10)


@pytest.mark.parametrize("attack", ["garbage", "number-beyond-all", "reports-as-another"])
def test_after_three_in_a_row_a_node_is_not_asked_for_some_rounds(attack, caplog):
    strategy, _ = run(attack, rounds=IN_A_ROW + REST_ROUNDS + 1)
    assert [refusal.round for refusal in strategy.ledger.refusals] == [1, 2, 3, 9]
    assert f"node {LIAR + 2}: 3 refusals in a row; it is asked again in round 9" in caplog.text
    resting = strategy.ledger.entries[IN_A_ROW:-1]
    assert all(entry.clients == (0, 1, 2, 4, 5) for entry in resting)


def test_refusals_with_a_good_reply_between_them_are_not_in_a_row():
    strategy, _ = run(attacks=["garbage", "garbage", "", "garbage", "garbage"], rounds=6)
    assert len(strategy.ledger.refusals) == 4 and len(strategy.ledger.entries[-1].clients) == N


class Grid(InProcessGrid):
    """A grid from which nodes leave, and in which some have a name; node 1000 is as node `twin`."""

    twin: int | None = None
    names: Mapping[int, str] = MappingProxyType({})
    gone: frozenset[int] = frozenset()

    def get_nodes(self):
        class Info:
            def __init__(self, node_id, name):
                self.node_id, self.name = node_id, name

        nodes = [*(node for node in self._nodes if node not in self.gone)]
        nodes += [1000] if self.twin else []
        return [Info(node, self.names.get(node, "")) for node in nodes]

    def _reply_to(self, message):
        if message.metadata.dst_node_id != 1000:
            return super()._reply_to(message)
        message.metadata.__dict__["_dst_node_id"] = self.twin
        reply = super()._reply_to(message)
        message.metadata.__dict__["_dst_node_id"] = 1000
        reply.metadata.__dict__["_src_node_id"] = 1000
        return reply


def begun(**attributes):
    """A strategy after a round of all, and its grid, of which something has changed since."""
    grid = Grid(app, N, {})
    grid.names = attributes.pop("names", {})
    strategy, _ = run(grid=grid)
    vars(grid).update(attributes)
    return strategy, grid


def next_round(strategy, grid):
    messages = strategy.configure_train(2, ArrayRecord(START), ConfigRecord(), grid)
    strategy.aggregate_train(2, grid.send_and_receive(messages))
    return {assignment.client for assignment in strategy._assignments}


def test_a_taken_number_is_refused_at_start_and_midway_and_the_other_goes_on():
    grid = Grid(app, N, {})
    grid.twin = 2
    strategy, model = run(grid=grid)
    (refusal,) = strategy.ledger.refusals
    assert model == 1 and strategy.ledger.entries[0].reported == N
    assert str(refusal) == "node 1000, client 0: client 0 is node 2; check partition-id"
    strategy, grid = begun(twin=4)
    assert next_round(strategy, grid) == set(range(N))
    assert strategy.ledger.refusals[0].reason == "client 2 is node 4; check partition-id"
    assert strategy.ledger.entries[-1].reported == N


def test_a_node_that_left_makes_room_unless_its_key_has_a_name():
    strategy, grid = begun(twin=2, gone=frozenset({2}))
    assert next_round(strategy, grid) == set(range(N)) and strategy.ledger.refusals == []
    strategy, grid = begun(twin=2, gone=frozenset({2}), names={2: "jetson-0"})
    assert next_round(strategy, grid) == set(range(1, N)) and len(strategy.ledger.refusals) == 1


def test_a_node_comes_back_as_itself_and_bindings_are_made_anew_for_a_run_that_goes_on():
    strategy, grid = begun(gone=frozenset({2}), names={2: "jetson-0"})
    next_round(strategy, grid)
    grid.gone = frozenset()
    assert next_round(strategy, grid) == set(range(N)) and strategy.ledger.refusals == []
    anew = SelectingStrategy(strategy.policy, strategy.aggregation, per_round=N)
    anew.restore(strategy.state(), strategy.ledger)
    grid.twin, grid.gone = 2, frozenset({2})
    messages = anew.configure_train(1, ArrayRecord(START), ConfigRecord(), grid)
    assert 1000 in {message.metadata.dst_node_id for message in messages}
