"""The ClientApp as a messenger: the agent on this device offers and trains.

It loads neither torch nor a model, so a round costs what the messages cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from powerctl.errors import DeviceUnavailable
from powerctl.rounds import RoundReport
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.proto import agent_pb2_grpc as rpc
from wattfed.client.agent.wire import (
    arrays_from_proto,
    arrays_to_proto,
    record_from_proto,
    record_to_proto,
)
from wattfed.strategies.code_version import code_version
from wattfed.strategies.records import ASSIGNMENT, CONFIG, OFFER, REPORT, RUN, decode

AGENT = "agent"  # key of the node configuration: the agent's socket
_MESSAGE_BYTES = 512 << 20


def query(message: Message, context: Context) -> Message:
    """Answer with the agent's offer."""
    with _rounds(context) as rounds:
        reply = rounds.Offer(pb.OfferRequest(**_configs(message, context)))
    offer = ConfigRecord(record_from_proto(reply.offer))
    return Message(RecordDict({OFFER: offer}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Have the agent train as assigned; answer with its arrays and its report."""
    config = message.content.config_records[CONFIG]
    server_round = int(config["server-round"])
    arrays = message.content.array_records["arrays"]
    request = pb.TrainRequest(
        round_id=f"{context.run_id}/{server_round}/{context.node_config['partition-id']}",
        assignment=record_to_proto(dict(message.content.config_records[ASSIGNMENT])),
        server_round=server_round,
        proximal_mu=float(config.get("proximal-mu", 0.0)),
        arrays=arrays_to_proto({name: array.numpy() for name, array in arrays.items()}),
        **_configs(message, context),
    )
    with _rounds(context) as rounds:
        result = _result(rounds.Train(request))
    report = record_from_proto(result.report)
    content = RecordDict({REPORT: ConfigRecord(report)})
    trained = arrays_from_proto(result.arrays)
    if trained:
        done = decode(RoundReport, report)
        content["arrays"] = ArrayRecord(
            {name: Array.from_numpy_ndarray(np.asarray(a)) for name, a in trained.items()}
        )
        content["metrics"] = MetricRecord({"num-examples": done.examples, "train-loss": done.loss})
    return Message(content, reply_to=message)


def _result(events: Iterator[pb.TrainEvent]) -> pb.TrainResult:
    for event in events:
        if event.WhichOneof("what") == "result":
            return event.result
    raise DeviceUnavailable("the agent ended the round without a result")


def _configs(message: Message, context: Context) -> Mapping[str, Any]:
    run = message.content.config_records[CONFIG].get(RUN, context.run_id)
    node = {k: v for k, v in context.node_config.items() if k != AGENT}
    return {
        "run_config": record_to_proto(dict(context.run_config)),
        "node_config": record_to_proto({**node, RUN: str(run)}),
        "code": code_version(),
    }


@contextmanager
def _rounds(context: Context) -> Iterator[rpc.RoundsStub]:
    """The agent's Rounds service; its refusals become errors of one line."""
    path = str(context.node_config[AGENT])
    limits = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES) for way in ("receive", "send")]
    try:
        with grpc.insecure_channel(f"unix:{path}", limits) as channel:
            yield rpc.RoundsStub(channel)
    except grpc.RpcError as error:
        call = error if isinstance(error, grpc.Call) else None
        words = f"{call.code().name}: {call.details()}" if call else str(error)
        raise DeviceUnavailable(f"agent at {path}: {words}") from None
