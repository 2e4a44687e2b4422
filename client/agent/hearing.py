"""How the agent hears calls: bytes that are no message are refused, as is what a service refuses.

gRPC answers both with UNKNOWN, and a traceback in the log: anybody who can connect could fill it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from wattfed.client.agent.calls import CallRefused

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Hearing(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Reads the messages of calls, and turns a `CallRefused` into the call's status."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """The handler of a call, which is given bytes."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        answer = getattr(handler, kind)
        parse = _reader(handler.request_deserializer)

        def read(raw: Any) -> Any:
            return _each(raw, parse) if handler.request_streaming else parse(raw)

        async def one(raw: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await answer(read(raw), context)
            except CallRefused as refused:
                await context.abort(refused.code, refused.message)

        async def many(raw: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                async for reply in answer(read(raw), context):
                    yield reply
            except CallRefused as refused:
                await context.abort(refused.code, refused.message)

        heard = many if inspect.isasyncgenfunction(answer) else one
        return handler._replace(request_deserializer=None, **{kind: heard})


def _reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            raise CallRefused(
                grpc.StatusCode.INVALID_ARGUMENT, "the bytes are no message of this call"
            ) from None

    return read


async def _each(raw: AsyncIterator[bytes], parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for one in raw:
        yield parse(one)
