"""The strategy over a real ClientApp in process: what it does with replies that go wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.in_process_grid import InProcessGrid
from tests.strategies.offers_of import offer, report
from tests.strategies.watching import Watching
from wattfed.strategies.policies.all_clients import AllClients
from wattfed.strategies.protocol import (
    CONFIG,
    RoundAssignment,
    RoundReport,
    decode_record,
    encode_record,
)
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

app = ClientApp()
START = [np.zeros((2, 3), dtype=np.float32), np.ones(4, dtype=np.float32)]


@app.query()
def query(message: Message, context: Context) -> Message:
    client = context.node_config["partition-id"]
    fault = context.run_config.get(f"fault-{client}", "")
    if fault == "no-offer":
        raise RuntimeError("asleep")
    if fault == "bad-offer":
        return Message(RecordDict({CONFIG: ConfigRecord({"client": client})}), reply_to=message)
    changes = {"poor": {"allowance_j": 100.0}, "unable": {"decline": "too hot"}}.get(fault, {})
    return Message(
        RecordDict({CONFIG: ConfigRecord(encode_record(offer(client, **changes)))}),
        reply_to=message,
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    client = context.node_config["partition-id"]
    fault = context.run_config.get(f"fault-{client}", "")
    assignment = decode_record(RoundAssignment, message.content[CONFIG])
    assert assignment.client == client
    if fault == "raise":
        raise RuntimeError("out of memory")
    if fault == "no-report":
        return Message(RecordDict(), reply_to=message)
    if fault == "decline":
        declined = report(client, minibatches=0, decline="too hot")
        return Message(
            RecordDict({CONFIG: ConfigRecord(encode_record(declined))}), reply_to=message
        )
    if fault == "lost":
        lost = report(client, lost="crashed")
        return Message(RecordDict({CONFIG: ConfigRecord(encode_record(lost))}), reply_to=message)
    arrays = [array + client for array in message.content["arrays"].to_numpy_ndarrays()]
    if fault == "nan":
        arrays[0][0, 0] = np.nan
    if fault == "huge":
        arrays[0][0, 0] = 3e38
    if fault == "shape":
        arrays[1] = arrays[1][:3]
    content = {
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord({"num-examples": 1}),
        CONFIG: ConfigRecord(encode_record(report(client))),
    }
    return Message(RecordDict(content), reply_to=message)


def run(faults=None, aggregation="fedavg", rounds=1):
    run_config = {f"fault-{client}": fault for client, fault in (faults or {}).items()}
    strategy = SelectingStrategy(
        AllClients(), make_aggregation(RunConfig(aggregation=aggregation)), per_round=4
    )
    grid = InProcessGrid(app, 4, run_config)
    result = strategy.start(grid, ArrayRecord(START), num_rounds=rounds)
    return strategy.ledger.entries[-1], result


def mean_shift(result):
    return float(result.arrays.to_numpy_ndarrays()[0][0, 0])


def test_an_update_that_is_lost_is_charged_and_the_policy_does_not_hear_of_it(monkeypatch):
    heard = []
    monkeypatch.setattr(AllClients, "observe", lambda self, reports: heard.extend(reports))
    entry, result = run({1: "lost"})
    assert (entry.reported, entry.failed, entry.rejected) == (3, 1, 0)
    assert entry.wasted_energy_j == report(1).energy_j + 2.0 * 0.5
    assert [one.client for one in heard] == [0, 2, 3]
    assert mean_shift(result) == pytest.approx((0 + 2 + 3) / 3)


def test_a_round_without_faults_averages_all():
    entry, result = run()
    assert entry.clients == (0, 1, 2, 3) and entry.reported == 4
    assert mean_shift(result) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ("raise", {"failed": 1, "reported": 3}),
        ("no-report", {"failed": 1, "reported": 3}),
        ("decline", {"declined": 1, "reported": 3}),
        ("nan", {"rejected": 1, "reported": 4}),
        ("shape", {"rejected": 1, "reported": 4}),
        ("no-offer", {"clients": (0, 1, 2), "reported": 3}),
        ("bad-offer", {"clients": (0, 1, 2), "reported": 3}),
    ],
)
def test_a_fault_of_one_client_is_counted_and_the_others_are_averaged(fault, counted):
    entry, result = run({3: fault})
    assert {key: getattr(entry, key) for key in counted} == counted
    assert mean_shift(result) == pytest.approx(1.0)


def test_a_failure_is_named_by_its_client(caplog):
    run({2: "raise"})
    assert any("client 2 failed" in record.getMessage() for record in caplog.records)


def test_who_cannot_do_the_work_of_a_round_is_named_once(caplog):
    caplog.set_level("INFO", "flwr")
    run({1: "poor", 2: "unable"}, rounds=2)
    told = [record.getMessage() for record in caplog.records]
    assert told.count("client 2 declines: too hot") == 1
    (poor,) = [text for text in told if text.startswith("client 1 ")]
    assert "has 100 J for a round, whose 10 minibatches take at least 140 J" in poor


def told(faults, **options):
    """What a policy that asks is told of the updates of a round."""
    policy, config = Watching(), RunConfig(aggregation="fedavg", **options)
    run_config = {f"fault-{client}": fault for client, fault in faults.items()}
    strategy = SelectingStrategy(policy, make_aggregation(config), per_round=4)
    strategy.start(InProcessGrid(app, 4, run_config), ArrayRecord(START), num_rounds=1)
    return policy.told[0]


@pytest.mark.parametrize("fault", ["nan", "huge", "shape", "no-report", "decline", "lost", "raise"])
def test_what_a_client_sends_is_in_no_other_ones_summary(fault):
    """Client c moves ten parameters by c; what went wrong has no summary, the others the same."""
    sound = told({})
    assert {client: norm for client, (norm, _) in sound.items()} == pytest.approx(
        {client: client * np.sqrt(10) for client in range(4)}
    )
    del sound[2]
    assert told({2: fault}) == sound


def test_a_policy_is_told_the_length_to_which_updates_are_clipped():
    free, clipped = told({}), told({}, clip_norm=1.0)
    longest = 1.5 * np.sqrt(10)
    for client, (norm, sketch) in free.items():
        factor = min(1.0, longest / norm) if norm else 1.0
        assert clipped[client][0] == pytest.approx(factor * norm)
        np.testing.assert_allclose(clipped[client][1], factor * np.array(sketch))


def test_a_round_in_which_all_fail_changes_nothing():
    entry, result = run(dict.fromkeys(range(4), "raise"))
    assert entry.failed == 4 and len(result.arrays) == 0


def test_without_a_quorum_the_model_stays_and_the_energy_is_wasted():
    aggregation = make_aggregation(RunConfig(min_reports=4))
    strategy = SelectingStrategy(AllClients(), aggregation, per_round=4)
    grid = InProcessGrid(app, 4, {"fault-3": "nan"})
    result = strategy.start(grid, ArrayRecord(START), num_rounds=1)
    entry = strategy.ledger.entries[0]
    assert len(result.arrays) == 0 and entry.reported == 4
    assert entry.wasted_energy_j == pytest.approx(entry.train_energy_j + entry.transfer_energy_j)


@pytest.mark.parametrize("aggregation", ["fedavg", "fedadam", "fedyogi", "fedmedian"])
def test_numbers_that_would_make_every_aggregate_infinite_cost_their_sender_alone(aggregation):
    entry, result = run({3: "huge"}, aggregation=aggregation)
    assert len(result.arrays) == 2 and (entry.reported, entry.rejected) == (4, 1)
    spent_j = entry.train_energy_j + entry.transfer_energy_j
    assert entry.wasted_energy_j == pytest.approx(spent_j / 4)


@pytest.mark.parametrize("again", ["twice", "in the next round"])
def test_a_reply_that_comes_again_counts_once(again, caplog):
    strategy = SelectingStrategy(AllClients(), make_aggregation(RunConfig()), per_round=4)
    grid = InProcessGrid(app, 4, {})

    def configured(server_round):
        return strategy.configure_train(server_round, ArrayRecord(START), ConfigRecord(), grid)

    replies = list(grid.send_and_receive(configured(1)))
    of_client = {
        decode_record(RoundReport, reply.content[CONFIG]).client: reply for reply in replies
    }
    again_from_3 = copy.deepcopy(of_client[3])
    if again == "in the next round":
        strategy.aggregate_train(1, replies)
        grid = InProcessGrid(app, 3, {})  # client 3 is gone
        replies = list(grid.send_and_receive(configured(2)))
    arrays, _ = strategy.aggregate_train(2, [*replies, again_from_3])
    entry = strategy.ledger.entries[-1]
    assert entry.reported == len(entry.clients)
    mean = np.mean(entry.clients)
    assert float(arrays.to_numpy_ndarrays()[0][0, 0]) == pytest.approx(mean)
    assert any("client 3: a late" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("aggregation", ["fedprox", "fedmedian", "fedadam"])
def test_any_aggregation_is_carried(aggregation):
    entry, result = run({3: "nan"}, aggregation)
    assert entry.rejected == 1 and np.isfinite(mean_shift(result))
