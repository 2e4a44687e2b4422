"""The gate's own Unix socket: the messages of the Gate service, each after its length.

A turn over gRPC costs half a millisecond in Python, most of it between gRPC's own threads; here
it is a write and a read. The socket lies beside the agent's, with ``.gate`` at the end of its name.
A frame is four bytes of length, lowest first, and a `TurnRequest` or a `TurnEvent`. What has no
turn is told of turn 0, before the end of the connection.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from wattfed.client.agent.calls import STATUS, CallRefused
from wattfed.client.agent.framing import LENGTH, LONGEST, framed
from wattfed.client.agent.gate_holders import Holder, Holders
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tickets import STOPPING

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


class GateSocket:
    """Listens, and makes each connection a holder."""

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
            connection.end(CallRefused(STATUS[STOPPING], "the agent stops"))


class _Connection(asyncio.Protocol):
    """One holder's connection: it reads requests, and writes events as they come."""

    def __init__(self, holders: Holders, all_of_them: set[_Connection]) -> None:
        self._holders = holders
        self._all = all_of_them
        self._holder: Holder | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A process has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._all.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, however that came."""
        self._all.discard(self)
        if self._holder is not None:
            self._holders.leave(self._holder)

    def data_received(self, data: bytes) -> None:
        """Requests, or parts of them."""
        self._buffer += data
        try:
            while len(self._buffer) >= LENGTH.size:
                (length,) = LENGTH.unpack_from(self._buffer)
                if length > LONGEST:
                    raise CallRefused(_INVALID, f"a frame of {length} bytes; at most {LONGEST}")
                end = LENGTH.size + length
                if len(self._buffer) < end:
                    return
                request = pb.TurnRequest.FromString(bytes(self._buffer[LENGTH.size : end]))
                del self._buffer[:end]
                self._hear(request)
        except CallRefused as refused:
            self.end(refused)
        except DecodeError:
            self.end(CallRefused(_INVALID, "that is no TurnRequest"))

    def pause_writing(self) -> None:
        """It does not read: then neither do we."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._transport.resume_reading()

    def end(self, why: CallRefused) -> None:
        """Say why, and hang up."""
        refusal = pb.Refusal(code=why.code.value[0], message=why.message)
        self._send(pb.TurnEvent(refused=pb.Refused(refusal=refusal)))
        self._transport.close()

    def _hear(self, request: pb.TurnRequest) -> None:
        if self._holder is None:
            self._holder = self._holders.join(request, self._send)
        else:
            self._holders.hear(self._holder, request)

    def _send(self, event: pb.TurnEvent) -> None:
        if not self._transport.is_closing():
            self._transport.write(framed(event))
