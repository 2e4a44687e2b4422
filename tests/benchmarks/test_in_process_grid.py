"""The in-process grid behaves to apps as Flower's runtimes do."""

from __future__ import annotations

import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.in_process_grid import InProcessGrid
from powerctl.errors import InvalidInput

N_NODES = 4
BROKEN = 2
app = ClientApp()


@app.query()
def whoami(message: Message, context: Context) -> Message:
    me = {**context.node_config, "scale": context.run_config["scale"]}
    return Message(RecordDict({"me": ConfigRecord(me)}), reply_to=message)


@app.query("count")
def count(message: Message, context: Context) -> Message:
    seen = context.state["count"]["n"] + 1 if "count" in context.state else 1
    context.state["count"] = MetricRecord({"n": seen})
    if context.node_config["partition-id"] == BROKEN and seen > 1:
        raise RuntimeError("no battery")
    return Message(RecordDict({"count": context.state["count"]}), reply_to=message)


@app.query("vandal")
def vandal(message: Message, context: Context) -> Message:
    message.content["config"]["round"] += 1
    reply = Message(RecordDict({"seen": message.content["config"]}), reply_to=message)
    message.content.clear()
    return reply


@app.query("silent")
def silent(message: Message, context: Context) -> None:
    return None


@app.train()
def train(message: Message, context: Context) -> Message:
    own = float(context.node_config["partition-id"])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    content = {
        "arrays": ArrayRecord([weights + own]),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": 1, "mean": float(weights.mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@pytest.fixture
def grid() -> InProcessGrid:
    return InProcessGrid(app, N_NODES, {"scale": 0.5})


def to_all(grid, message_type, content=None):
    return [Message(content or RecordDict(), node, message_type) for node in grid.get_node_ids()]


def test_every_client_knows_its_partition_and_the_run_config(grid):
    replies = grid.send_and_receive(to_all(grid, "query"))
    assert [dict(reply.content["me"]) for reply in replies] == [
        {"partition-id": i, "num-partitions": N_NODES, "scale": 0.5} for i in range(N_NODES)
    ]


def test_replies_come_in_the_order_of_the_messages_and_name_them(grid):
    messages = to_all(grid, "query")[::-1]
    replies = list(grid.send_and_receive(messages, timeout=0.0))
    ids = [message.metadata.message_id for message in messages]
    assert len(set(ids)) == N_NODES
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids
    nodes = [message.metadata.dst_node_id for message in messages]
    assert [reply.metadata.src_node_id for reply in replies] == nodes


def test_a_generator_of_messages_is_as_good_as_a_list(grid):
    messages = (message for message in to_all(grid, "query"))
    assert len(list(grid.send_and_receive(messages))) == N_NODES


def test_node_ids_are_the_same_in_every_run_and_none_is_the_superlinks(grid):
    again = InProcessGrid(app, N_NODES, {})
    assert list(grid.get_node_ids()) == list(again.get_node_ids()) == [2, 3, 4, 5]


def test_state_outlives_the_message_but_not_the_grid(grid):
    for expected in (1, 2, 3):
        reply, *_ = grid.send_and_receive(to_all(grid, "query.count"))
        assert reply.content["count"]["n"] == expected
    other = InProcessGrid(app, N_NODES, {})
    reply, *_ = other.send_and_receive(to_all(other, "query.count"))
    assert reply.content["count"]["n"] == 1


def test_a_client_that_raises_makes_an_error_reply_and_the_others_go_on(grid):
    grid.send_and_receive(to_all(grid, "query.count"))
    messages = to_all(grid, "query.count")
    replies = list(grid.send_and_receive(messages))
    assert [reply.has_error() for reply in replies] == [False, False, True, False]
    failed = replies[BROKEN]
    assert failed.error.code == 2
    assert failed.error.reason == "<class 'RuntimeError'>:<'no battery'>"
    assert failed.metadata.reply_to_message_id == messages[BROKEN].metadata.message_id
    assert failed.metadata.src_node_id == messages[BROKEN].metadata.dst_node_id


def test_what_a_client_did_to_its_state_before_it_raised_is_undone(grid):
    for _ in range(3):
        grid.send_and_receive(to_all(grid, "query.count"))
    node = list(grid.get_node_ids())[BROKEN]
    assert grid.context(node).state["count"]["n"] == 1


@pytest.mark.parametrize("message_type", ["query.silent", "query.unheard"])
def test_no_reply_and_no_handler_are_errors_of_the_client(grid, message_type):
    replies = grid.send_and_receive(to_all(grid, message_type))
    assert [reply.error.code for reply in replies] == [2] * N_NODES


def test_a_message_to_a_node_that_is_not_there_is_answered_as_by_a_superlink(grid):
    (reply,) = grid.send_and_receive([Message(RecordDict(), 99, "query")])
    assert reply.error.code == 5
    with pytest.raises(InvalidInput, match="99"):
        grid.context(99)


def test_a_client_cannot_change_what_the_next_client_receives(grid):
    content = RecordDict({"config": ConfigRecord({"round": 7})})
    replies = grid.send_and_receive(to_all(grid, "query.vandal", content))
    assert [reply.content["seen"]["round"] for reply in replies] == [8] * N_NODES
    assert content["config"]["round"] == 7


def test_replies_are_handed_out_once_and_may_be_pulled_late(grid):
    ids = list(grid.push_messages(to_all(grid, "query")))
    grid.send_and_receive(to_all(grid, "query"))
    assert len(list(grid.pull_messages(ids))) == N_NODES
    assert list(grid.pull_messages(ids)) == []


def test_a_strategy_of_flower_runs_on_it(grid):
    start = ArrayRecord([np.zeros(3, dtype=np.float32)])
    result = FedAvg().start(grid, start, num_rounds=2)
    (weights,) = result.arrays.to_numpy_ndarrays()
    np.testing.assert_allclose(weights, 2 * np.mean(range(N_NODES)))
    assert result.evaluate_metrics_clientapp[2]["mean"] == pytest.approx(3.0)


def test_a_hundred_thousand_clients_cost_nothing_until_they_are_used():
    began_s = time.process_time()
    grid = InProcessGrid(app, 100_000, {"scale": 1.0})
    last = max(grid.get_node_ids())
    (reply,) = grid.send_and_receive([Message(RecordDict(), last, "query")])
    assert reply.content["me"]["partition-id"] == 99_999
    assert len(grid._contexts) == 1
    assert time.process_time() - began_s < 1.0


def test_a_grid_has_at_least_one_node():
    with pytest.raises(InvalidInput, match="n_nodes is 0"):
        InProcessGrid(app, 0, {})
