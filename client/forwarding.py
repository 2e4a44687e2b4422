"""The ClientApp as a messenger: the agent on this device offers, trains and evaluates.

It loads neither torch nor a model, so a round costs what the messages cost.
"""

from __future__ import annotations

from itertools import chain

import grpc
from flwr.app import ConfigRecord, Context, Message, RecordDict

from powerctl.errors import DeviceUnavailable
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.wire import NODE_CONFIG, RUN_CONFIG, Assembly, parts_of
from wattfed.client.worker.messages import RoundContext
from wattfed.strategies.code_version import CODE
from wattfed.strategies.protocol import CONFIG, RUN, VERSION

AGENT = "agent"  # key of the node configuration: the agent's socket
_PATIENCE_S = 90.0  # until an agent is up that its unit starts again
# a connection of its own each time, which looks for it every second
_OPTIONS = [("grpc.max_reconnect_backoff_ms", 1_000), ("grpc.use_local_subchannel_pool", 1)]


def forward(message: Message, context: Context) -> Message:
    """Answer a message with what the agent answers."""
    told = RoundContext.of(message.content)
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
    path, why = str(context.node_config[AGENT]), ""
    for patience_s in (0.0, _PATIENCE_S):
        try:
            return Message(_answer(path, head, content, patience_s), reply_to=message)
        except grpc.FutureTimeoutError:
            why += f"; it did not come back within {patience_s:g} s"
        except grpc.RpcError as error:
            call = error if isinstance(error, grpc.Call) else None
            why = f"{call.code().name}: {call.details()}" if call else str(error)
            if call and call.code() is grpc.StatusCode.UNIMPLEMENTED:
                why += "; it is of another version of wattfed than this app"
            # one that was killed in a round, and is started again, knows of it and says so
            if head.kind == "query" or not call or call.code() is not grpc.StatusCode.UNAVAILABLE:
                break
    raise DeviceUnavailable(f"agent at {path}: {why}")


def _answer(path: str, head: pb.Head, content: RecordDict, patience_s: float = 0.0) -> RecordDict:
    """The content of an agent's reply; with patience, of one that is being started."""
    reply = Assembly()
    with grpc.insecure_channel(f"unix:{path}", _OPTIONS) as channel:
        if patience_s:
            grpc.channel_ready_future(channel).result(patience_s)
        for part in rpc.RoundsStub(channel).Handle(chain([pb.Part(head=head)], parts_of(content))):
            reply.add(part)
    return reply.content()
