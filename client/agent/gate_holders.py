"""Holders: the workloads of other processes, as jobs of the engine, and their turns.

However its process is connected (see `gate_connections`), a holder hears the protocol's requests
and tells it events by a function of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc

from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.workload import Workload
from wattfed.client.agent.async_bridge import AsyncBridge
from wattfed.client.agent.calls import CallRefused, check_budget
from wattfed.client.agent.engine_jobs import Abandoned, EngineJob, Outcome, Ticket, TicketRefusal
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.strategies.protocol import Seconds

LONGEST_LEASE_S = 120.0  # first minibatches on a Jetson have taken up to 97 s
_GUESS_S = 0.01  # of a minibatch that nobody knows the time of; the first one corrects it
_KNOWN, _GUESSED = 8.0, 0.5  # measurements that an expected time is worth
_DEFAULT_LATENCY_S = 0.1  # as `Gate` has it
Send = Callable[[pb.TurnEvent], None]


class HeldTurn:
    """A turn of a holder: granted, and over when released, expired, or its stream has ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.granted = False
        self._over = threading.Event()
        self._how = ""

    def end(self, how: str) -> None:
        """End it, as ``"released"``, ``"failed"`` or ``"broken"``; only the first counts."""
        if not self._over.is_set():
            self._how = how
            self._over.set()

    def hold(self, lease_s: float) -> str:
        """Wait for the end, on the device thread; ``"expired"`` if the lease ends first."""
        return self._how if self._over.wait(lease_s) else "expired"


class Holder(EngineJob):
    """The workload of another process, as a job of the engine.

    Parameters
    ----------
    name : str
        Unique.
    join : pb.Join
        What it says of itself.
    lease_s : float
        Longest turn.
    bridge : AsyncBridge
    send : callable
        Tells the holder of an event; called on the loop, and must not wait.

    Raises
    ------
    InvalidInput
        If what it says of itself is out of range.
    """

    def __init__(
        self, name: str, join: pb.Join, lease_s: float, bridge: AsyncBridge, send: Send
    ) -> None:
        for field in ("latency_s", "expected_s", "rate_hz", "lease_s"):
            checked(field, getattr(join, field), Seconds)
        self.name = name
        self.lease_s = min(join.lease_s or lease_s, LONGEST_LEASE_S)
        self._is_training = join.kind == pb.TRAIN
        self._latency_s = join.latency_s or _DEFAULT_LATENCY_S
        self._bridge = bridge
        self._engine = bridge.engine
        self._send = send
        self._workload = Workload(name, "train" if self._is_training else "infer", 1)
        self._turn: HeldTurn | None = None  # asked for, or had
        self._begun: HeldTurn | None = None
        self._asked_s = 0.0
        self._withdraw: Callable[[], None] = _nothing  # what it has asked for
        time_s = join.expected_s or _GUESS_S
        weight = _KNOWN if join.expected_s else _GUESSED
        if self._is_training:
            self._engine.add_training(self, TrainingJob(name, time_s, weight))
        else:
            service = ServiceSpec(
                name=name,
                latency_s=self._latency_s,
                batch_size=1,
                time_s={1: time_s},
                rate_hz=join.rate_hz,
                late="serve" if join.serve_late else "reject",
                capacity=1,
                weight=weight,
            )
            self._engine.add_service(self, service)

    # What its process asks for, on the loop

    def hear(self, request: pb.TurnRequest) -> None:
        """Do what the process asks for; raises `CallRefused` for what it may not ask."""
        what = request.WhichOneof("what")
        try:
            if what == "acquire":
                self._acquire(request.acquire)
            elif what == "release":
                self._release(request.release)
            else:
                raise InvalidInput("after the join, there are acquires and releases only")
        except InvalidInput as error:
            raise CallRefused.of(error) from None

    def leave(self) -> None:
        """End its turn, as its connection has ended; it waits for no other."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end("broken")
        self._withdraw()
        self._engine.remove(self.name)

    def _acquire(self, acquire: pb.Acquire) -> None:
        if self._turn is not None:
            raise InvalidInput(f"turn {self._turn.number} is not released yet")
        turn = self._turn = HeldTurn(acquire.turn)
        self._asked_s = self._engine.device.now()
        if self._is_training:
            self._withdraw = partial(self._engine.want, self.name, False)
            self._engine.want(self.name)
            return
        budget_s = acquire.deadline_s or self._latency_s
        check_budget(budget_s)
        settle = partial(self._settle, turn)
        self._withdraw = self._bridge.submit(self.name, turn, budget_s, settle)

    def _release(self, release: pb.Release) -> None:
        turn = self._turn
        if turn is None or turn.number != release.turn:
            return  # its lease ran out before
        self._turn = None
        turn.end("failed" if release.failed or not turn.granted else "released")
        if not turn.granted:  # it does not want it any more
            self._withdraw()

    def _settle(self, turn: HeldTurn, outcome: Outcome) -> None:
        """Pass a refusal on; a grant has been told by `begin`."""
        if isinstance(outcome, TicketRefusal) and not turn.granted:
            if self._turn is turn:
                self._turn = None
            refused = pb.Refused(turn=turn.number, refusal=CallRefused.by(outcome).to_proto())
            self._send(pb.TurnEvent(refused=refused))

    # What the engine asks of it

    def workload(self, size: int) -> Workload:
        """The workload of a turn, which is known by name alone."""
        return self._workload

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Grant the turn, and tell the holder."""
        if self._is_training:  # one minibatch was asked for; not later, as then the next may be
            self._engine.want(self.name, False)
        turn = self._begun = tickets[0].payload if tickets else self._turn
        if turn is None:  # its holder has just gone
            return
        turn.granted = True
        waited_s = self._engine.device.now() - self._asked_s
        self._post(pb.TurnEvent(granted=pb.Granted(turn=turn.number, waited_s=waited_s)))

    def run(self, tickets: Sequence[Ticket]) -> Sequence[Any]:
        """Have the device until the turn is over."""
        turn = self._begun
        if turn is None:
            raise Abandoned(f"{self.name}: the holder has gone")
        how = turn.hold(self.lease_s)
        if self._turn is turn:
            self._turn = None
        if how == "expired":
            self._post(pb.TurnEvent(expired=pb.Expired(turn=turn.number)))
            raise Abandoned(f"{self.name}: the lease of {self.lease_s:g} s has run out")
        if how != "released":
            raise Abandoned(f"{self.name}: the turn has {how}")
        return [None] * len(tickets)

    def _post(self, event: pb.TurnEvent) -> None:
        self._bridge.post(partial(self._send, event))


class Holders:
    """The workloads of other processes that use the gate now.

    Parameters
    ----------
    bridge : AsyncBridge
    lease_s : float
        Longest turn of a holder that asks for no other.
    most : int
        Holders at a time.
    """

    def __init__(self, bridge: AsyncBridge, lease_s: float = 2.0, most: int = 64) -> None:
        self._bridge = bridge
        self._lease_s = lease_s
        self._most = most
        self._holders: set[Holder] = set()
        self._numbers = itertools.count(1)

    def join(self, first: pb.TurnRequest, send: Send) -> Holder:
        """Take a holder in by its first message, and tell it so.

        Raises
        ------
        CallRefused
            If there are too many, or it is no proper join.
        """
        if len(self._holders) >= self._most:
            message = f"{self._most} workloads use the gate already"
            raise CallRefused(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        join = first.join
        try:
            if first.WhichOneof("what") != "join" or not join.kind:
                raise InvalidInput("turns begin with a join that says infer or train")
            name = f"gate:{join.name or 'process'}:{next(self._numbers)}"
            holder = Holder(name, join, self._lease_s, self._bridge, send)
        except InvalidInput as error:
            raise CallRefused.of(error) from None
        self._holders.add(holder)
        send(pb.TurnEvent(joined=pb.Joined(name=holder.name, lease_s=holder.lease_s)))
        return holder

    def leave(self, holder: Holder) -> None:
        """Forget a holder whose connection has ended."""
        self._holders.discard(holder)
        holder.leave()


def _nothing() -> None:
    """Do nothing: where nothing has been asked for."""
