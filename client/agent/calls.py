"""Calls of the agent: how they are refused, and the limits that keep an overloaded one answering.

gRPC answers bytes that are no message, and what a service raises, with UNKNOWN and a traceback in
the log, which anybody who can connect could fill: `Hearing` answers both with a status.
"""

from __future__ import annotations

import inspect
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from powerctl.errors import InvalidInput, PowerctlError, Refused, UnknownName
from powerctl.token_bucket import TokenBucket
from wattfed.client.agent.engine_jobs import (
    BROKEN,
    EXPIRED,
    FAILED,
    FULL,
    LATE,
    REMOVED,
    STOPPING,
    TicketRefusal,
)
from wattfed.client.agent.proto import agent_pb2 as pb

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_LONGEST_BUDGET_S = 3600.0
_MOST_CLIENTS = 4096  # whose rates are remembered; of more, who has been quiet longest is forgotten

_STATUS = {
    LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
    FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    REMOVED: grpc.StatusCode.UNAVAILABLE,
    STOPPING: grpc.StatusCode.UNAVAILABLE,
    FAILED: grpc.StatusCode.INTERNAL,
    EXPIRED: grpc.StatusCode.ABORTED,
    BROKEN: grpc.StatusCode.UNAVAILABLE,
}


class CallRefused(Refused):
    """A call that is not answered: with what status, and words for people."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def by(cls, refusal: TicketRefusal) -> CallRefused:
        """The refusal of a call whose request the engine has refused."""
        return cls(_STATUS[refusal.reason], refusal.message)

    @classmethod
    def of(cls, error: PowerctlError) -> CallRefused:
        """The refusal of a call for what it asks, as an error says."""
        unknown = isinstance(error, UnknownName)
        code = grpc.StatusCode.NOT_FOUND if unknown else grpc.StatusCode.INVALID_ARGUMENT
        return cls(code, str(error))

    def to_proto(self) -> pb.Refusal:
        """The refusal as a message, for one request of a stream."""
        return pb.Refusal(code=self.code.value[0], message=self.message)


class Hearing(grpc.aio.ServerInterceptor):
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


def check_budget(budget_s: float) -> None:
    """Raise `InvalidInput` unless a request may wait for its answer for so long."""
    if not 0 < budget_s <= _LONGEST_BUDGET_S:
        raise InvalidInput(
            f"deadline_s must be positive and at most {_LONGEST_BUDGET_S:g}, got {budget_s:g}"
        )


class RateLimit:
    """A token bucket for each client.

    Parameters
    ----------
    rate_hz : float
        Tokens that come in a second; 0: no limit.
    burst : float
        Tokens that a bucket holds; by default those of a second, at least one.
    clock : callable
        Seconds.
    """

    def __init__(
        self, rate_hz: float, burst: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_hz = rate_hz
        self._burst = burst or max(rate_hz, 1.0)
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, client: str) -> None:
        """Take a token; raises `CallRefused` if the client's bucket is empty."""
        if not self._rate_hz:
            return
        now_s = self._clock()
        bucket = self._buckets.pop(client, None) or TokenBucket(self._rate_hz, self._burst, now_s)
        self._buckets[client] = bucket
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if bucket.wait_s(now_s) > 0:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {self._rate_hz:g} requests a second; send fewer, or raise --rate-limit",
            )
        bucket.take(now_s)


class ByteLimit:
    """Bytes of requests that are under way, together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold some bytes for the block; raises `CallRefused` if that is too many."""
        if self._held + size > self._most:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"requests of {self._most >> 20} MiB are under way already; send fewer at a time",
            )
        self._held += size
        try:
            yield
        finally:
            self._held -= size
