"""The Gate service: turns over gRPC, for processes in any language.

A turn costs gRPC's own half millisecond; `gate_socket` speaks the same messages for
less.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from wattfed.client.agent.calls import CallRefused
from wattfed.client.agent.gate_holders import Holder, Holders
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.proto import agent_pb2_grpc as rpc


class GateService(rpc.GateServicer):
    """Makes the workload of each stream a holder."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._streams: set[asyncio.Queue[pb.TurnEvent | None]] = set()

    def close(self) -> None:
        """End all streams: the agent stops."""
        for events in self._streams:
            events.put_nowait(None)

    async def Turns(
        self,
        requests: AsyncIterator[pb.TurnRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Hand out turns until the stream ends, however it does."""
        events: asyncio.Queue[pb.TurnEvent | None] = asyncio.Queue()
        first = await anext(requests, pb.TurnRequest())
        holder = self._holders.join(first, events.put_nowait)
        reader = asyncio.create_task(self._read(requests, holder, events))
        self._streams.add(events)
        try:
            while (event := await events.get()) is not None:
                await context.write(event)
        finally:
            self._streams.discard(events)
            self._holders.leave(holder)
            wrong = await _end(reader)
        if wrong is not None:
            raise wrong

    async def _read(
        self,
        requests: AsyncIterator[pb.TurnRequest],
        holder: Holder,
        events: asyncio.Queue[pb.TurnEvent | None],
    ) -> None:
        """Follow what the holder asks for; in the end, end the stream."""
        try:
            async for request in requests:
                self._holders.hear(holder, request)
        finally:
            events.put_nowait(None)


async def _end(reader: asyncio.Task[None]) -> CallRefused | None:
    """End the reading of a stream; the status to end it with, None if the holder has ended it."""
    stopped = not reader.done()
    reader.cancel()
    (outcome,) = await asyncio.gather(reader, return_exceptions=True)
    if isinstance(outcome, CallRefused):
        return outcome
    return CallRefused(grpc.StatusCode.UNAVAILABLE, "the agent stops") if stopped else None
