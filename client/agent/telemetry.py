"""The Power service: the mode, the plan in force, energy, and what became of every job's turns."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import grpc

from powerctl.device import Device
from wattfed.client.agent.calls import CallRefused
from wattfed.client.agent.engine_state import EngineState, JobState
from wattfed.client.agent.planning import PlanState
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.proto import agent_pb2_grpc as rpc
from wattfed.client.agent.turn_engine import TurnEngine

_SHORTEST_PERIOD_S, _LONGEST_PERIOD_S = 0.1, 86_400.0


@dataclass(frozen=True)
class Reading:
    """Time and energy of a device at one moment, and the state of its engine."""

    now_s: float
    energy_j: float
    mode: str
    engine: EngineState

    def power_w(self, before: Reading | None) -> float:
        """Mean power since another reading; NaN without one."""
        if before is None or self.now_s <= before.now_s:
            return math.nan
        return (self.energy_j - before.energy_j) / (self.now_s - before.now_s)


def read(engine: TurnEngine) -> Reading:
    """The present reading; a sensor may take a few milliseconds."""
    device = engine.device
    return Reading(device.now(), device.energy_j(), str(device.mode()), engine.state())


class PowerService(rpc.PowerServicer):
    """Tells how the device does.

    Parameters
    ----------
    engine : TurnEngine
    spec : str
        How the device was asked for.
    plan : callable
        The plan in force.
    """

    def __init__(self, engine: TurnEngine, spec: str, plan: Callable[[], PlanState]) -> None:
        self._engine = engine
        self._spec = spec
        self._plan = plan

    async def GetStatus(
        self, request: pb.StatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.Status:
        """Everything now."""
        return self._status(await asyncio.to_thread(read, self._engine), None)

    async def Telemetry(
        self, request: pb.TelemetryRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Everything, again and again; a client that reads slowly gets fewer."""
        period_s = request.period_s or 1.0
        if not _SHORTEST_PERIOD_S <= period_s <= _LONGEST_PERIOD_S:
            raise CallRefused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"period_s must be from {_SHORTEST_PERIOD_S:g} to {_LONGEST_PERIOD_S:g}, got "
                f"{period_s:g}",
            )
        before = None
        while True:
            reading = await asyncio.to_thread(read, self._engine)
            await context.write(self._status(reading, before))
            before = reading
            await asyncio.sleep(period_s)

    def _status(self, reading: Reading, before: Reading | None) -> pb.Status:
        jobs = reading.engine.jobs
        return pb.Status(
            device=self._spec,
            board=self._engine.device.board.name,
            mode=reading.mode,
            energy_source=energy_source(self._engine.device),
            uptime_s=reading.now_s,
            energy_j=reading.energy_j,
            power_w=reading.power_w(before),
            running=reading.engine.running,
            plan=pb.Plan(
                mode=reading.mode,
                batch_size={job.name: job.batch_size for job in jobs if not job.is_training},
                load=reading.engine.load,
                **asdict(self._plan()),
            ),
            jobs=[*map(_job, jobs), *(_job(job, left=True) for job in reading.engine.left)],
        )


def energy_source(device: Device) -> str:
    """What a device's energy rests on."""
    return str(getattr(device, "energy_source", "the device's own sensor"))


def _job(job: JobState, left: bool = False) -> pb.JobStatus:
    account = job.account
    return pb.JobStatus(
        name=job.name,
        kind=pb.TRAIN if job.is_training else pb.INFER,
        queued=job.queued,
        arrived=account.arrived,
        answered=account.answered,
        within=account.within,
        rejected_late=account.rejected_late,
        rejected_full=account.rejected_full,
        withdrawn=account.withdrawn,
        turns=account.turns,
        busy_s=account.busy_s,
        latency_p50_s=job.latency_p50_s,
        latency_p99_s=job.latency_p99_s,
        rate_hz=job.rate_hz,
        batch_size=job.batch_size,
        latency_s=job.latency_s,
        left=left,
    )
