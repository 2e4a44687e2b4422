"""How other processes reach the gate: the Gate service over gRPC, and a socket of its own.

Both carry the same messages. A turn over gRPC costs half a millisecond in Python, most of it
between gRPC's own threads; on the gate's own Unix socket it is a write and a read. That lies beside
the agent's, with ``.gate`` at the end of its name. A frame is four bytes of length, lowest first,
and a `TurnRequest` or a `TurnEvent`. What has no turn is told of turn 0, before the end of the
connection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from wattfed.client.agent.calls import CallRefused
from wattfed.client.agent.framing import FrameBuffer, framed
from wattfed.client.agent.gate_holders import Holder, Holders
from wattfed.client.agent.proto import agent_pb2 as pb

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


class GateService:
    """Makes the workload of each gRPC stream a holder, for processes in any language."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._streams: set[asyncio.Queue[pb.TurnEvent | None]] = set()

    def close(self) -> None:
        """End all streams: the agent stops."""
        for events in self._streams:
            events.put_nowait(None)

    async def Turns(
        self, requests: AsyncIterator[pb.TurnRequest], context: grpc.aio.ServicerContext
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
            stopped = not reader.done()  # else the holder has ended the stream, or is refused
            reader.cancel()
            (outcome,) = await asyncio.gather(reader, return_exceptions=True)
        if isinstance(outcome, CallRefused):
            raise outcome
        if stopped:
            raise _agent_stops()

    async def _read(
        self,
        requests: AsyncIterator[pb.TurnRequest],
        holder: Holder,
        events: asyncio.Queue[pb.TurnEvent | None],
    ) -> None:
        """Follow what the holder asks for; in the end, end the stream."""
        try:
            async for request in requests:
                holder.hear(request)
        finally:
            events.put_nowait(None)


class GateSocket:
    """Listens on the gate's own socket, and makes each connection a holder."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self._server: asyncio.AbstractServer | None = None
        self.connections: set[_Connection] = set()

    async def open(self, path: Path) -> None:
        """Listen; only this user may connect."""
        before = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(
                lambda: _Connection(self._holders, self.connections), path
            )
        finally:
            os.umask(before)

    def close(self) -> None:
        """Tell all holders that the agent stops, and end."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.end(_agent_stops())


class _Connection(asyncio.Protocol):
    """One holder's connection: it reads requests, and writes events as they come."""

    def __init__(self, holders: Holders, all_of_them: set[_Connection]) -> None:
        self._holders = holders
        self._all = all_of_them
        self._holder: Holder | None = None
        self._frames = FrameBuffer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection of a process in."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Have its holder leave, however the connection has ended."""
        self._all.discard(self)
        if self._holder is not None:
            self._holders.leave(self._holder)

    def data_received(self, data: bytes) -> None:
        """Do what the requests ask for that have now come as a whole."""
        self._frames.add(data)
        try:
            while (message := self._frames.next()) is not None:
                request = pb.TurnRequest.FromString(message)
                if self._holder is None:
                    self._holder = self._holders.join(request, self._send)
                else:
                    self._holder.hear(request)
        except CallRefused as refused:
            self.end(refused)
        except DecodeError:
            self.end(CallRefused(_INVALID, "that is no TurnRequest"))
        except ValueError as error:
            self.end(CallRefused(_INVALID, str(error)))

    def pause_writing(self) -> None:
        """Read no more from a process that does not read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again, as the process does."""
        self._transport.resume_reading()

    def end(self, why: CallRefused) -> None:
        """Say why, and hang up."""
        self._send(pb.TurnEvent(refused=pb.Refused(refusal=why.to_proto())))
        self._transport.close()

    def _send(self, event: pb.TurnEvent) -> None:
        if not self._transport.is_closing():
            self._transport.write(framed(event.SerializeToString()))


def _agent_stops() -> CallRefused:
    """The refusal by which a holder is told that the agent stops."""
    return CallRefused(grpc.StatusCode.UNAVAILABLE, "the agent stops")
