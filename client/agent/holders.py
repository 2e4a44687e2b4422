"""Holders: the workloads of other processes, as jobs of the engine, and their turns.

However a holder is connected, it is told events by a function of its own and speaks in the
protocol's messages; see `wattfed.client.agent.gate_socket` and `wattfed.client.agent.gate_service`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
from wattfed.client.agent.desk import Desk, Pending
from wattfed.client.agent.jobs import Abandoned
from wattfed.client.agent.limits import STATUS, CallRefused
from wattfed.client.agent.tickets import STOPPING, Answer, Refusal, Ticket
from wattfed.strategies.ranges import Seconds

from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.workload import Workload
from wattfed.client.agent.proto import agent_pb2 as pb

LONGEST_LEASE_S = 120.0  # first minibatches on a Jetson have taken up to 97 s
_GUESS_S = 0.01  # of a minibatch that nobody knows the time of; the first one corrects it
_KNOWN, _GUESSED = 8.0, 0.5  # measurements that an expected time is worth
_DEFAULT_LATENCY_S = 0.1
_LONGEST_BUDGET_S = 3600.0
_LONGEST_NAME = 64
Send = Callable[[pb.TurnEvent], None]


class HeldTurn:
    """A turn of a holder: granted, and over when released, expired, or its stream has ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.granted = False
        self._over = threading.Event()
        self._how = ""

    def end(self, how: str) -> None:
        """It is over: ``"released"``, ``"failed"`` or ``"broken"``; only the first counts."""
        if not self._over.is_set():
            self._how = how
            self._over.set()

    def hold(self, lease_s: float) -> str:
        """Wait for the end, on the device thread; ``"expired"`` if the lease ends first."""
        return self._how if self._over.wait(lease_s) else "expired"


class Holder:
    """The workload of another process, as a job of the engine.

    Parameters
    ----------
    name : str
        Unique.
    join : pb.Join
        What it says of itself.
    lease_s : float
        Longest turn.
    desk : Desk
    send : callable
        Tells the holder of an event; called on the loop, and must not wait.
    """

    def __init__(self, name: str, join: pb.Join, lease_s: float, desk: Desk, send: Send) -> None:
        self.name = name
        self.is_training = join.kind == pb.TRAIN
        self.lease_s = lease_s
        self.latency_s = join.latency_s or _DEFAULT_LATENCY_S
        self.pending: Pending | None = None
        self.turn: HeldTurn | None = None  # asked for, or had
        self._begun: HeldTurn | None = None
        self.asked_s = 0.0
        self.send = send
        self._desk = desk
        self._workload = Workload(name, "train" if self.is_training else "infer", 1)

    def workload(self, size: int) -> Workload:
        """Known by name alone."""
        return self._workload

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Grant the turn."""
        if self.is_training:  # one minibatch was asked for; not later, as then the next may be
            self._desk.engine.want(self.name, False)
        turn = self._begun = tickets[0].payload if tickets else self.turn
        if turn is None:  # its holder has just gone
            return
        turn.granted = True
        waited_s = self._desk.engine.device.now() - self.asked_s
        granted = pb.Granted(turn=turn.number, waited_s=waited_s)
        self._send(pb.TurnEvent(granted=granted))

    def run(self, tickets: Sequence[Ticket]) -> Sequence[Any]:
        """Have the device until the turn is over."""
        turn = self._begun
        if turn is None:
            raise Abandoned(f"{self.name}: the holder has gone")
        how = turn.hold(self.lease_s)
        if self.turn is turn:
            self.turn = None
        if how == "expired":
            self._send(pb.TurnEvent(expired=pb.Expired(turn=turn.number)))
            raise Abandoned(f"{self.name}: the lease of {self.lease_s:g} s has run out")
        if how != "released":
            raise Abandoned(f"{self.name}: the turn has {how}")
        return [None] * len(tickets)

    def ended(self) -> None:
        """Nothing is left to do."""

    def _send(self, event: pb.TurnEvent) -> None:
        self._desk.post(partial(self.send, event))


class Holders:
    """The workloads of other processes: they join, acquire and release, and leave.

    Parameters
    ----------
    desk : Desk
    lease_s : float
        Longest turn of a holder that asks for no other.
    most : int
        Holders at a time.
    """

    def __init__(self, desk: Desk, lease_s: float = 2.0, most: int = 64) -> None:
        self._desk = desk
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
        try:
            holder = self._take_in(first, send)
        except InvalidInput as error:
            raise CallRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        send(pb.TurnEvent(joined=pb.Joined(name=holder.name, lease_s=holder.lease_s)))
        return holder

    def hear(self, holder: Holder, request: pb.TurnRequest) -> None:
        """Do what a holder asks for; raises `CallRefused` for what it may not ask."""
        what = request.WhichOneof("what")
        try:
            if what == "acquire":
                self._acquire(holder, request.acquire)
            elif what == "release":
                self._release(holder, request.release)
            else:
                raise InvalidInput("after the join, there are acquires and releases only")
        except InvalidInput as error:
            raise CallRefused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None

    def leave(self, holder: Holder) -> None:
        """Its connection has ended: so has its turn, and it waits for no other."""
        self._holders.discard(holder)
        turn, holder.turn = holder.turn, None
        if turn is not None:
            turn.end("broken")
        self._stop_waiting(holder)
        self._desk.engine.remove(holder.name)

    def _take_in(self, first: pb.TurnRequest, send: Send) -> Holder:
        if first.WhichOneof("what") != "join" or not first.join.kind:
            raise InvalidInput("turns begin with a join that says infer or train")
        join = first.join
        _check(join)
        name = f"gate:{join.name or 'process'}:{next(self._numbers)}"
        holder = Holder(
            name, join, min(join.lease_s or self._lease_s, LONGEST_LEASE_S), self._desk, send
        )
        expected_s = join.expected_s or _GUESS_S
        weight = _KNOWN if join.expected_s else _GUESSED
        engine = self._desk.engine
        if holder.is_training:
            engine.add_training(holder, TrainingJob(name, expected_s, weight))
        else:
            service = ServiceSpec(
                name=name,
                latency_s=holder.latency_s,
                batch_size=1,
                time_s={1: expected_s},
                rate_hz=join.rate_hz,
                late="serve" if join.serve_late else "reject",
                capacity=1,
                weight=weight,
            )
            engine.add_service(holder, service)
        self._holders.add(holder)
        return holder

    def _acquire(self, holder: Holder, acquire: pb.Acquire) -> None:
        if holder.turn is not None:
            raise InvalidInput(f"turn {holder.turn.number} is not released yet")
        turn = holder.turn = HeldTurn(acquire.turn)
        engine = self._desk.engine
        holder.asked_s = engine.device.now()
        if holder.is_training:
            engine.want(holder.name)
            return
        budget_s = acquire.deadline_s or holder.latency_s
        if not 0 < budget_s <= _LONGEST_BUDGET_S:
            raise InvalidInput(f"deadline_s must be positive, got {budget_s:g}")
        settle = partial(_settle, holder, turn)
        holder.pending = self._desk.submit(holder.name, turn, budget_s, settle)

    def _release(self, holder: Holder, release: pb.Release) -> None:
        turn = holder.turn
        if turn is None or turn.number != release.turn:
            return  # its lease ran out before
        holder.turn = None
        turn.end("failed" if release.failed or not turn.granted else "released")
        if not turn.granted:  # it does not want it any more
            self._stop_waiting(holder)

    def _stop_waiting(self, holder: Holder) -> None:
        if holder.is_training:
            self._desk.engine.want(holder.name, False)
        elif holder.pending is not None:
            holder.pending.withdraw()


def _settle(holder: Holder, turn: HeldTurn, outcome: Answer | Refusal) -> None:
    """Pass a refusal on; a grant has been told by `Holder.begin`."""
    if holder.pending is not None:
        holder.pending.over()
    if isinstance(outcome, Refusal) and not turn.granted:
        if holder.turn is turn:
            holder.turn = None
        code = STATUS.get(outcome.reason, STATUS[STOPPING]).value[0]
        refusal = pb.Refusal(code=code, message=outcome.message)
        refused = pb.Refused(turn=turn.number, refusal=refusal)
        holder.send(pb.TurnEvent(refused=refused))


def _check(join: pb.Join) -> None:
    for field in ("latency_s", "expected_s", "rate_hz", "lease_s"):
        checked(field, getattr(join, field), Seconds)
