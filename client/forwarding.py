"""The ClientApp as a messenger: the agent on this device offers, trains and evaluates.

It loads neither torch nor a model, so a round costs what the messages cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import grpc
from flwr.app import ConfigRecord, Context, Message, RecordDict

from powerctl.errors import DeviceUnavailable
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.proto import agent_pb2_grpc as rpc
from wattfed.client.agent.wire import NODE_CONFIG, RUN_CONFIG, Assembly, parts_of
from wattfed.client.messages import Told
from wattfed.strategies.code_version import CODE
from wattfed.strategies.protocol import CONFIG, RUN, VERSION

AGENT = "agent"  # key of the node configuration: the agent's socket


def forward(message: Message, context: Context) -> Message:
    """Answer a message with what the agent answers."""
    told = Told.of(message.content)
    node = {key: value for key, value in context.node_config.items() if key != AGENT}
    head = pb.Head(
        protocol=VERSION,
        code=str(message.content.config_records[CONFIG].get(CODE, "")),
        kind=message.metadata.message_type.partition(".")[0],
        round_id=f"{context.run_id}/{told.server_round}/{node['partition-id']}",
    )
    content = RecordDict(
        {
            **message.content,
            RUN_CONFIG: ConfigRecord(dict(context.run_config)),
            NODE_CONFIG: ConfigRecord({**node, RUN: told.run or str(context.run_id)}),
        }
    )
    reply = Assembly()
    with _rounds(context) as rounds:
        for part in rounds.Handle(chain([pb.Part(head=head)], parts_of(content))):
            reply.add(part)
    return Message(reply.content(), reply_to=message)


query = train = evaluate = forward


@contextmanager
def _rounds(context: Context) -> Iterator[rpc.RoundsStub]:
    """The agent's Rounds service; its refusals become errors of one line."""
    path = str(context.node_config[AGENT])
    try:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            yield rpc.RoundsStub(channel)
    except grpc.RpcError as error:
        call = error if isinstance(error, grpc.Call) else None
        words = f"{call.code().name}: {call.details()}" if call else str(error)
        if call and call.code() is grpc.StatusCode.UNIMPLEMENTED:
            words += "; it is of another version of wattfed than this app"
        raise DeviceUnavailable(f"agent at {path}: {words}") from None
