"""The gate: how other processes take turns with what the agent runs on the same device.

    gate = Gate("camera", latency_s=0.05)
    while True:
        frame = camera.read()
        with gate.minibatch("infer"):
            boxes = detector(frame)

One workload has the device at a time, and turns change between minibatches. Whoever dies in its
turn loses it at once, and whoever hangs, when its lease ends.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from powerctl.accelerator import synchronise
from powerctl.errors import DeviceUnavailable, InvalidInput, Refused
from wattfed.client.agent.framing import GATE_SUFFIX, LONGEST, FrameBuffer, framed
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.settings import default_agent_socket

_KINDS = {"infer": pb.INFER, "train": pb.TRAIN}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_LONGEST_SILENCE_S = 3600.0  # a training turn may have to wait for long
_UNAVAILABLE = 14  # gRPC's numbers of statuses, without gRPC
_LATE_OR_FULL = (4, 8, 10)


class TurnRefused(Refused):
    """The agent has refused a turn: mostly because it could not come in time."""


class LeaseExceeded(UserWarning):
    """A turn took longer than its lease: others may have had the device meanwhile."""


class Gate:
    """Asks the agent for turns; connects when the first is asked for, and again when it must.

    Threads may share a gate; each kind of workload has one turn at a time.

    Parameters
    ----------
    name : str
        Of the workload, as the agent shows it; by default the process number.
    socket : str, optional
        Of the agent; by default ``$WATTFED_AGENT_SOCKET`` or where the agent puts it.
    latency_s : float
        Budget of an inference, from asking for the turn to its end.
    expected_s : float
        Of a minibatch; 0 if unknown. It is learned.
    rate_hz : float
        Inference turns in a second; 0 if unknown.
    lease_s : float
        Longest turn; 0 for the agent's default. First minibatches take long.
    serve_late : bool
        Whether a turn that comes too late is wanted all the same; else it is refused.
    patience_s : float
        For how long to look for an agent that does not answer.
    """

    def __init__(
        self,
        name: str = "",
        *,
        socket: str | None = None,
        latency_s: float = 0.1,
        expected_s: float = 0.0,
        rate_hz: float = 0.0,
        lease_s: float = 0.0,
        serve_late: bool = False,
        patience_s: float = 10.0,
    ) -> None:
        path = (socket or default_agent_socket()) + GATE_SUFFIX
        self._patience_s = patience_s
        self._streams = {
            kind: _Stream(
                path,
                pb.Join(
                    name=name or str(os.getpid()),
                    kind=number,
                    latency_s=latency_s,
                    expected_s=expected_s,
                    rate_hz=rate_hz,
                    lease_s=lease_s,
                    serve_late=serve_late,
                ),
            )
            for kind, number in _KINDS.items()
        }

    @contextmanager
    def minibatch(self, kind: str, deadline_s: float = 0.0) -> Iterator[None]:
        """Have the device for one minibatch.

        Parameters
        ----------
        kind : str
            ``"infer"``: with a deadline, before training. ``"train"``: whenever there is room.
        deadline_s : float
            Of this inference, from now to its end; 0 for the gate's `latency_s`.

        Raises
        ------
        TurnRefused
            If it could not come in time.
        DeviceUnavailable
            If no agent answers.
        """
        if kind not in self._streams:
            raise InvalidInput(f"a minibatch is of kind infer or train, not {kind!r}")
        stream = self._streams[kind]
        with stream.lock:
            stream.acquire(deadline_s, self._patience_s)
            done = False
            try:
                yield
                synchronise()  # else it would run on, in somebody else's turn
                done = True
            finally:
                stream.release(failed=not done)

    def close(self) -> None:
        """Give up the connection; the next minibatch makes a new one."""
        for stream in self._streams.values():
            with stream.lock:
                stream.close()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoGate(Gate):
    """Where there is no agent: every turn is had at once."""

    def __init__(self) -> None:
        self._streams = {}

    @contextmanager
    def minibatch(self, kind: str, deadline_s: float = 0.0) -> Iterator[None]:
        """Have the device, as everybody has."""
        if kind not in _KINDS:
            raise InvalidInput(f"a minibatch is of kind infer or train, not {kind!r}")
        yield


def find_gate(name: str = "", **options: Any) -> Gate:
    """The gate of the agent on this machine, or `NoGate` if no agent has left a socket."""
    path = Path((options.get("socket") or default_agent_socket()) + GATE_SUFFIX)
    return Gate(name, **options) if path.is_socket() else NoGate()


class _Gone(Exception):
    """The connection has ended; a new one may be had."""


class _Stream:
    """One workload's connection, made anew when it breaks."""

    def __init__(self, path: str, join: pb.Join) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._join = join
        self._socket: socket.socket | None = None
        self._frames = FrameBuffer()
        self._turn = 0
        self._lease_s = 0.0
        self._granted_s = 0.0

    def acquire(self, deadline_s: float, patience_s: float) -> None:
        """Wait for a turn, through as many connections as it takes."""
        give_up_s, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
        while True:
            try:
                if self._socket is None:
                    self._connect()
                return self._ask(deadline_s)
            except (OSError, _Gone) as error:
                self.close()
                if time.monotonic() + pause_s > give_up_s:
                    raise DeviceUnavailable(
                        f"no agent answers at {self._path} ({error}); start one: "
                        "wattfed-agent serve"
                    ) from None
            except BaseException:  # such as Ctrl-C: a turn that comes now would be nobody's
                self.close()
                raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def release(self, failed: bool) -> None:
        """Give the turn back; the agent need not answer."""
        held_s = time.monotonic() - self._granted_s
        with suppress(OSError):  # a broken connection has given it back
            self._send(pb.TurnRequest(release=pb.Release(turn=self._turn, failed=failed)))
        if held_s > self._lease_s:
            warnings.warn(
                f"a turn took {held_s:.3g} s, its lease was {self._lease_s:.3g} s, and others may "
                "have had the device meanwhile; ask for more: Gate(lease_s=...)",
                LeaseExceeded,
                stacklevel=4,
            )

    def close(self) -> None:
        """End the connection, and with it the turn."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _connect(self) -> None:
        self._frames = FrameBuffer()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LONGEST_SILENCE_S)
        self._socket.connect(self._path)
        self._send(pb.TurnRequest(join=self._join))
        event = self._receive()
        if event.WhichOneof("what") != "joined":
            self._refused(event.refused.refusal)
        self._lease_s = event.joined.lease_s

    def _ask(self, deadline_s: float) -> None:
        self._turn += 1
        acquire = pb.Acquire(turn=self._turn, deadline_s=deadline_s)
        self._send(pb.TurnRequest(acquire=acquire))
        while True:
            event = self._receive()
            what = event.WhichOneof("what")
            if what == "granted" and event.granted.turn == self._turn:
                self._granted_s = time.monotonic()
                return
            if what == "refused" and event.refused.turn in (0, self._turn):
                self._refused(event.refused.refusal)
            # else the end of a turn before: its lease has run out

    def _refused(self, refusal: pb.Refusal) -> NoReturn:
        if refusal.code == _UNAVAILABLE:  # the agent stops; another may start
            raise _Gone(refusal.message)
        if refusal.code not in _LATE_OR_FULL:
            self.close()  # the agent has, too
        raise TurnRefused(refusal.message)

    def _send(self, request: pb.TurnRequest) -> None:
        if self._socket is None:
            raise OSError("no connection")
        self._socket.sendall(framed(request.SerializeToString()))

    def _receive(self) -> pb.TurnEvent:
        assert self._socket is not None
        while (message := self._frames.next()) is None:
            received = self._socket.recv(LONGEST)
            if not received:
                raise _Gone("the agent has hung up")
            self._frames.add(received)
        event: pb.TurnEvent = pb.TurnEvent.FromString(message)
        return event
