"""The Rounds service: what clients offer, and their training, one minibatch a turn."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import grpc
from flwr.app import RecordDict

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.modes import PowerMode
from wattfed.client.agent.members import Member, Members
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.registry import Registry
from wattfed.client.agent.round_device import RoundDevice
from wattfed.client.agent.served_models import task_model
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.agent.wire import NODE_CONFIG, RUN_CONFIG, Assembly, parts_of
from wattfed.client.worker.messages import RoundContext, assignment_of, offered, trained
from wattfed.strategies.code_version import code_version, runs
from wattfed.strategies.protocol import ARRAYS, RoundAssignment, RoundReport, check_protocol

Away = Callable[[], AbstractContextManager[None]]
_LOG = logging.getLogger("wattfed.agent")
_KINDS = ("query", "train", "evaluate")  # of messages
_PROGRESS_S = 0.5  # between two words on a round's progress
_PROBE_SHARE = 0.1  # of the tightest budget
_KEPT_ROUNDS = 4  # results of rounds that are over, for a caller that lost its connection


class _Round:
    """One client's training or evaluation: in a thread of its own, heard of by any callers."""

    def __init__(
        self,
        round_id: str,
        content: RecordDict,
        assignment: RoundAssignment | None,
        member: Member,
        device: RoundDevice,
        away: Away,
    ) -> None:
        self.id = round_id
        self.progress = pb.Progress()
        self.listeners = 0
        self.result: asyncio.Task[RecordDict]
        self._content = content
        self._assignment = assignment  # None: it evaluates
        self._member = member
        self._device = device
        self._away = away

    def interrupt(self, why: str) -> None:
        """End it after the running minibatch."""
        self._device.interrupt(why)

    def run(self, engine: TurnEngine, registry: Registry) -> RecordDict:
        """Evaluate, or train and serve the global model to begin with; the reply's content."""
        with self._away():
            return self._run(engine, registry)

    def _run(self, engine: TurnEngine, registry: Registry) -> RecordDict:
        try:
            if self._assignment is None:
                return self._member.evaluate(self._device, self._content)
            _serve_global(registry, self._member.client.config.task, self._content)
            self._device.end_at(self._device.now() + self._assignment.deadline_s)
            self.progress.planned = self._assignment.minibatches
            others_s = self._others_s(engine)
            report, arrays = self._member.train(self.id, self._device, self._content, self._tell)
            others_s = self._others_s(engine) - others_s
            return trained(self._with_others(report, engine, others_s), arrays)
        finally:
            self._device.close()

    def _with_others(self, report: RoundReport, engine: TurnEngine, others_s: float) -> RoundReport:
        """A report with what else the device did meanwhile, for so many seconds."""
        report = replace(report, inference_p99_s=_slowest_p99_s(engine))
        if report.decline and report.stopped:
            why = f"{report.decline}; other turns took {others_s:.3g} of {report.time_s:.3g} s"
            report = replace(report, decline=why)
            _LOG.warning("round %s: %s", self.id, why)
        return report

    def _others_s(self, engine: TurnEngine) -> float:
        """Seconds that inference and all else there is now have had the device for."""
        jobs = engine.state().jobs
        return sum((job.account.busy_s for job in jobs if job.name != self._device.name), 0.0)

    def _tell(self, losses: list[float], mode: PowerMode, time_s: float, energy_j: float) -> None:
        self.progress = pb.Progress(
            minibatches=len(losses),
            planned=self.progress.planned,
            time_s=time_s,
            energy_j=energy_j,
            loss=losses[-1],
            mode=str(mode),
        )


class RoundsService:
    """Offers, trains and evaluates for the ClientApps of this machine.

    Parameters
    ----------
    engine : TurnEngine
        Gives turns.
    registry : Registry
        Models of the run's task that are served get each round's global parameters.
    members : Members
        The clients that offer, train and evaluate.
    sets_modes : bool
        Whether rounds set the mode; else they train in that of the plan in force.
    away : callable
        Keeps what uses idle time away from the device, as long as its context lasts.
    """

    def __init__(
        self,
        engine: TurnEngine,
        registry: Registry,
        members: Members,
        *,
        sets_modes: bool = True,
        away: Away = nullcontext,
    ) -> None:
        self._engine = engine
        self._away = away
        self._registry = registry
        self._members = members
        self._sets_modes = sets_modes
        self._rounds: dict[tuple[str, str], _Round] = {}  # by kind and id
        self._warned: set[str] = set()  # of which other versions
        code_version()  # of what runs here, whatever is installed later

    async def Handle(
        self, request: AsyncIterator[pb.Part], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Part]:
        """Answer a message of the server; one that takes turns, with its progress first."""
        try:
            head, content = await self._read(request)
            member = await asyncio.to_thread(self._member, content)
            if head.kind == "query":
                offer = await asyncio.to_thread(member.offer, RoundContext.of(content))
                reply = offered(offer)
            elif head.kind == "train" and member.was_killed_in(head.round_id):
                reply = await asyncio.to_thread(member.lost, content)
            else:
                round_ = self._rounds.get((head.kind, head.round_id))
                round_ = round_ or await self._begin(head, content, member)
                async for progress in self._listen(round_):
                    yield pb.Part(progress=progress)
                reply = round_.result.result()
            for part in parts_of(reply):
                yield part
        except PowerctlError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:
            if isinstance(error, grpc.RpcError):
                raise
            _LOG.exception("a message failed")
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    async def _listen(self, round_: _Round) -> AsyncIterator[pb.Progress]:
        """The progress of a round until its end; a caller that is gone ends one it had alone."""
        round_.listeners += 1
        try:
            while not round_.result.done():
                await asyncio.wait({round_.result}, timeout=_PROGRESS_S)
                yield round_.progress
        finally:
            round_.listeners -= 1
            if not round_.listeners:
                round_.interrupt("caller gone")

    async def _read(self, request: AsyncIterator[pb.Part]) -> tuple[pb.Head, RecordDict]:
        """A message's head and content; raises `InvalidInput` if it is not understood."""
        head, content = pb.Head(), Assembly()
        async for part in request:
            if part.WhichOneof("what") == "head":
                head = part.head
                check_protocol("the ClientApp", head.protocol)
            content.add(part)
        if head.kind not in _KINDS:
            raise InvalidInput(f"a message of kind {head.kind!r}; known: {', '.join(_KINDS)}")
        if head.code not in self._warned and not runs(head.code):
            self._warned.add(head.code)
            _LOG.warning(
                "the server runs other code (%s) than this agent (%s): install the app's code "
                "here and restart the agent",
                *(head.code or "an older one", code_version()),
            )
        return head, content.content()

    async def Cancel(
        self, request: pb.CancelRequest, context: grpc.aio.ServicerContext
    ) -> pb.CancelReply:
        """End a round; its caller gets the report of what was done."""
        running = [
            round_
            for round_ in self._rounds.values()
            if round_.id == request.round_id and not round_.result.done()
        ]
        for round_ in running:
            round_.interrupt(request.reason or "cancelled")
        return pb.CancelReply(found=bool(running))

    def interrupt_all(self, why: str) -> None:
        """End every round after its running minibatch."""
        for round_ in self._rounds.values():
            round_.interrupt(why)

    async def _begin(self, head: pb.Head, content: RecordDict, member: Member) -> _Round:
        assignment = assignment_of(content) if head.kind == "train" else None
        offer = await asyncio.to_thread(member.offer, RoundContext.of(content))
        predicted_s = float(offer.front.time_s[0]) if len(offer.front) else offer.maxn.time_s
        # A prediction beyond a budget would keep the job from ever being measured: the first
        # minibatch is a probe, and what it takes decides from then on.
        budgets_s = [job.latency_s for job in self._engine.state().jobs if not job.is_training]
        expected_s = min([predicted_s, *(_PROBE_SHARE * budget_s for budget_s in budgets_s)])
        device = RoundDevice(
            self._engine,
            f"round {head.round_id}{'' if assignment else ', evaluation'}",
            member.client.workload,
            expected_s,
            sets_modes=self._sets_modes,
            is_cold=("train" if assignment else "test") not in member.client.task.warm,
        )
        round_ = _Round(head.round_id, content, assignment, member, device, self._away)
        round_.result = asyncio.create_task(
            asyncio.to_thread(round_.run, self._engine, self._registry)
        )
        for old in list(self._rounds)[: max(0, len(self._rounds) - _KEPT_ROUNDS)]:
            if self._rounds[old].result.done():
                del self._rounds[old]
        self._rounds[head.kind, head.round_id] = round_
        return round_

    def _member(self, content: RecordDict) -> Member:
        records = content.config_records
        round_context = RoundContext.of(content)
        if missing := [name for name in (RUN_CONFIG, NODE_CONFIG) if name not in records]:
            raise InvalidInput(f"a message without {missing[0]}")
        configs = dict(records[RUN_CONFIG]), dict(records[NODE_CONFIG])
        member = self._members.get(*configs, round_context.task_hash)
        task = member.client.task
        round_context.check_task(task.name, task.code_hash)
        return member


def _slowest_p99_s(engine: TurnEngine) -> float:
    """Of the services' last answers; 0 where there are none."""
    served = [job.latency_p99_s for job in engine.state().jobs if not job.is_training]
    return max((p99_s for p99_s in served if math.isfinite(p99_s)), default=0.0)


def _serve_global(registry: Registry, task: str, content: RecordDict) -> None:
    """Swap a message's parameters, the global ones, into every served model of a task."""
    for model in registry.models():
        if registry.task(model.name) == task:
            arrays = content.array_records[ARRAYS]
            source = f"federated round, after version {model.version}"
            registry.swap(task_model(model.name, task, arrays, model.version + 1, source))
