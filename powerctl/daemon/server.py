"""The daemon's loop: it serves a board lock over a Unix socket, one request at a time.

Connections take turns: between two requests of one, every other is served one. So a restore waits
for one request of each other connection at most, of which few touch the board (see
`powerctl.daemon.board_lock`); and beyond its rate, a connection is not read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from powerctl.daemon.board_lock import BoardLock, Client
from powerctl.daemon.listening import Listener
from powerctl.daemon.messages import MAX_REQUEST, encode_error, encode_line, parse_request
from powerctl.daemon.peers import Admission, Peer, peer_of
from powerctl.daemon.systemd import Notifier
from powerctl.errors import DeviceUnavailable, InvalidInput, PowerctlError
from powerctl.token_bucket import TokenBucket

_TICK_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger("powerctl.daemon")


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a user may have, and how often and how slowly they may ask.

    Attributes
    ----------
    of_one_user : int
        Connections at a time; root and members of the group have no others to fear.
    per_s, at_once : float
        Requests on a connection, in the long run and after a rest; others wait to be read.
    idle_s, answer_s : float
        Without a whole request, or without taking the answer, a connection is closed.
    """

    of_one_user: int = 32
    per_s: float = 200.0
    at_once: float = 100.0
    idle_s: float = 300.0
    answer_s: float = 5.0


class Server:
    """Serves a board lock to those who are admitted, until it is stopped.

    Parameters
    ----------
    listener : Listener
        Where they connect.
    board_lock : BoardLock
        What they ask.
    admission : Admission
        Who may ask.
    limits : ConnectionLimits, optional
        What they may take up.
    """

    def __init__(
        self,
        listener: Listener,
        board_lock: BoardLock,
        admission: Admission,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._listener = listener
        self._board = board_lock
        self._verbs: dict[str, Callable[..., dict[str, Any]]] = {
            "apply": board_lock.apply,
            "hold": board_lock.hold,
            "read": board_lock.read,
            "restore": board_lock.restore,
        }
        self._admission = admission
        self._limits = limits or ConnectionLimits()
        self._connected: Counter[int] = Counter()

    async def run(self) -> None:
        """Serve until a signal says to end, or the task is cancelled; then restore.

        Raises
        ------
        ModeNotInForce
            If the board cannot be restored at the end.
        """
        stopped, notifier = asyncio.Event(), Notifier()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        server = await asyncio.start_unix_server(
            self._serve, sock=self._listener.socket, limit=MAX_REQUEST
        )
        notifier.ready()
        log.info("serves at %s, for %s", self._listener.path, self._admission)
        try:
            while not stopped.is_set():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stopped.wait(), _TICK_S)
                self._board.tend()
                notifier.alive()
        finally:
            notifier.stopping()
            server.close()
            self._board.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until it ends, in whatever way."""
        client = Client(peer_of(writer.get_extra_info("socket")))
        user = client.peer.uid
        self._connected[user] += 1
        try:
            refusal = self._refusal(client.peer)
            if refusal is None:
                with self._watched(client, writer):
                    await self._converse(client, reader, writer)
            else:
                log.warning("refused %s: %s", client.peer, refusal)
                await self._send(writer, encode_error(refusal))
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError):
            pass  # it has gone, is not heard of, or the daemon ends
        finally:
            self._board.leave(client)
            self._connected[user] -= 1
            writer.close()

    async def _converse(
        self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer line by line; after what is not a request, hang up."""
        bucket = TokenBucket(self._limits.per_s, self._limits.at_once)
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), self._limits.idle_s)
            except ValueError:  # longer than any request
                line = b"\n"
            if not line.endswith(b"\n"):
                return
            await asyncio.sleep(bucket.take(time.monotonic()))  # 0 lets the others have a turn
            if writer.is_closing():
                return
            self._board.hear(client)
            try:
                request = parse_request(line)
            except InvalidInput as error:
                await self._send(writer, encode_error(error))
                return
            await self._send(writer, self._answer(client, request.verb, request.mode))

    def _answer(self, client: Client, verb: str, mode: object) -> bytes:
        arguments = (client,) if mode is None else (client, mode)
        try:
            return encode_line(self._verbs[verb](*arguments))
        except (PowerctlError, OSError) as error:
            return encode_error(error)
        except Exception as error:  # a defect here: others are served all the same
            log.exception("%s of %s failed", verb, client.peer)
            return encode_error(DeviceUnavailable(f"the daemon has a defect: {error!r}"))

    async def _send(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        writer.write(line)
        await asyncio.wait_for(writer.drain(), self._limits.answer_s)

    def _refusal(self, peer: Peer) -> PowerctlError | None:
        """Why a peer is not served, in words for it; None if it is."""
        if self._connected[peer.uid] > self._limits.of_one_user:
            return DeviceUnavailable(f"user {peer.uid} has too many connections to the daemon")
        return self._admission.refusal(peer)

    @contextmanager
    def _watched(self, client: Client, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Hang up and restore as soon as the client's process ends.

        Its end closes the connection too, but not where a fork of it has a copy, and only behind
        all that it had asked for. A kernel before 5.3 tells of no process's end.
        """
        try:
            process = os.pidfd_open(client.peer.pid)
        except OSError:
            yield
            return
        loop = asyncio.get_running_loop()

        def over() -> None:
            loop.remove_reader(process)
            self._board.leave(client)
            writer.transport.abort()

        loop.add_reader(process, over)
        try:
            yield
        finally:
            loop.remove_reader(process)
            os.close(process)
