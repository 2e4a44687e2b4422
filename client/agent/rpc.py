"""The agent's gRPC services, by what `agent.proto` says of them: how to call one, and to serve it.

grpc's plugin for protoc would write the same out, a page for each method, and without types.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from wattfed.client.agent.proto import agent_pb2 as pb

_SERVICES = pb.DESCRIPTOR.services_by_name


def _kind(method: Any) -> str:
    """What gRPC calls a method by: one request or several, and one reply or several."""
    streams = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if several else "unary" for several in streams)


def _stub(name: str) -> Callable[[Any], Any]:
    """What makes a service's methods of a channel, by their names in `agent.proto`."""

    def connect(channel: Any) -> Any:
        service = _SERVICES[name]
        return SimpleNamespace(
            **{
                method.name: getattr(channel, _kind(method))(
                    f"/{service.full_name}/{method.name}",
                    request_serializer=GetMessageClass(method.input_type).SerializeToString,
                    response_deserializer=GetMessageClass(method.output_type).FromString,
                )
                for method in service.methods
            }
        )

    return connect


InferenceStub = _stub("Inference")
GateStub = _stub("Gate")
PowerStub = _stub("Power")
RoundsStub = _stub("Rounds")


def add_service(server: Any, name: str, servicer: object) -> None:
    """Have a server answer the calls of a service by an object's methods of the same names.

    A call whose method the object lacks is refused as unimplemented.
    """
    service = _SERVICES[name]
    handlers = {
        method.name: getattr(grpc, f"{_kind(method)}_rpc_method_handler")(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in service.methods
        if hasattr(servicer, method.name)
    }
    handler = grpc.method_handlers_generic_handler(service.full_name, handlers)
    server.add_generic_rpc_handlers((handler,))
