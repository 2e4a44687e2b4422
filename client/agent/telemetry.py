"""What the agent tells of mode, plan, energy and turns: the Power service, and Prometheus metrics.

The metrics are at an HTTP port of their own.
"""

from __future__ import annotations

import asyncio
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from powerctl.errors import DeviceUnavailable, InvalidInput
from wattfed.client.agent.calls import CallRefused
from wattfed.client.agent.engine_state import EngineState, JobState, TurnObserver
from wattfed.client.agent.known_tasks import KnownTasks
from wattfed.client.agent.planning import PlanState
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.turn_engine import TurnEngine

Budgets = Callable[[], Iterable[tuple[str, int, float]]]  # run, client, joules left
_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64)
_ACCOUNT = (
    ("arrived", "Requests that came."),
    ("answered", "Requests answered; minibatches of training."),
    ("within", "Requests answered within their budget."),
    ("rejected_late", "Requests refused because their budget could not be met."),
    ("rejected_full", "Requests refused because the queue was full."),
    ("withdrawn", "Requests that nobody waited for any more."),
    ("turns", "Turns that ran."),
    ("busy_s", "Seconds of the device."),
)
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


def read_now(engine: TurnEngine) -> Reading:
    """The present reading; a sensor may take a few milliseconds."""
    device = engine.device
    return Reading(device.now(), device.energy_j(), str(device.mode()), engine.state())


class PowerService:
    """Tells device, plan and jobs to whoever asks.

    Parameters
    ----------
    engine : TurnEngine
    spec : str
        How the device was asked for.
    plan : callable
        The plan in force.
    tasks : KnownTasks
        What is known of tasks.
    """

    def __init__(
        self, engine: TurnEngine, spec: str, plan: Callable[[], PlanState], tasks: KnownTasks
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._plan = plan
        self._tasks = tasks

    async def GetStatus(
        self, request: pb.StatusRequest, context: grpc.aio.ServicerContext
    ) -> pb.Status:
        """Tell device, plan and jobs as they are now."""
        reading = await asyncio.to_thread(read_now, self._engine)
        return await asyncio.to_thread(self._status, reading, None)

    async def Telemetry(
        self, request: pb.TelemetryRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Tell them once a period; a client that reads slowly gets fewer."""
        period_s = request.period_s or 1.0
        if not _SHORTEST_PERIOD_S <= period_s <= _LONGEST_PERIOD_S:
            raise CallRefused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"period_s must be from {_SHORTEST_PERIOD_S:g} to {_LONGEST_PERIOD_S:g}, got "
                f"{period_s:g}",
            )
        before = None
        while True:
            reading = await asyncio.to_thread(read_now, self._engine)
            await context.write(await asyncio.to_thread(self._status, reading, before))
            before = reading
            await asyncio.sleep(period_s)

    def _status(self, reading: Reading, before: Reading | None) -> pb.Status:
        jobs = reading.engine.jobs
        return pb.Status(
            device=self._spec,
            board=self._engine.device.board.name,
            mode=reading.mode,
            energy_source=self._engine.device.energy_source,
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
            tasks=self._tasks.told(),
            idle=self._tasks.idle,
        )


def _job(job: JobState, left: bool = False) -> pb.JobStatus:
    counts = asdict(job.account)
    return pb.JobStatus(
        name=job.name,
        kind=pb.TRAIN if job.is_training else pb.INFER,
        queued=job.queued,
        latency_p50_s=job.latency_p50_s,
        latency_p99_s=job.latency_p99_s,
        rate_hz=job.rate_hz,
        batch_size=job.batch_size,
        latency_s=job.latency_s,
        left=left,
        **{field: counts[field] for field, _ in _ACCOUNT},
    )


class Metrics(TurnObserver):
    """Counts as the engine's observer, and reads the rest when Prometheus asks.

    Raises
    ------
    DeviceUnavailable
        Without the package prometheus_client.
    """

    def __init__(self) -> None:
        try:
            self._prometheus: Any = importlib.import_module("prometheus_client")
            self._core: Any = importlib.import_module("prometheus_client.core")
        except ImportError:
            raise DeviceUnavailable(
                "metrics need prometheus_client: pip install prometheus-client"
            ) from None
        self.registry = self._prometheus.CollectorRegistry()
        self._latency = self._histogram("latency_seconds", "From arrival to answer.", _LATENCY_S)
        self._batch = self._histogram("batch_size", "Requests of a turn.", _BATCH)
        self._turn = self._histogram("turn_seconds", "Of a turn.", _LATENCY_S)
        self._refused = self._prometheus.Counter(
            "wattfed_refused", "Requests refused.", ("workload", "reason"), registry=self.registry
        )
        self._server: Any = None

    def ran(self, job: str, size: int, ran_s: float, latencies_s: Sequence[float]) -> None:
        """Count a turn and the latencies of its requests."""
        job = _family(job)
        self._batch.labels(job).observe(size)
        self._turn.labels(job).observe(ran_s)
        latency = self._latency.labels(job)
        for latency_s in latencies_s:
            latency.observe(latency_s)

    def refused(self, job: str, reason: str) -> None:
        """Count a request that was refused."""
        self._refused.labels(_family(job), reason).inc()

    def serve(self, engine: TurnEngine, budgets: Budgets, host: str, port: int) -> int:
        """Answer Prometheus at an address; returns the port (of 0, the one that was free)."""
        self.registry.register(_DeviceCollector(engine, budgets, self._core))
        try:
            self._server, _ = self._prometheus.start_http_server(port, host, self.registry)
        except OSError as error:
            raise InvalidInput(f"no metrics at {host}:{port}: {error.strerror}") from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Close the port; Prometheus gets no more answers."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _histogram(self, name: str, about: str, buckets: Sequence[float]) -> Any:
        return self._prometheus.Histogram(
            f"wattfed_{name}", about, ("workload",), buckets=buckets, registry=self.registry
        )


class _DeviceCollector:
    """Collects what the engine and the device know by themselves, at each scrape."""

    def __init__(self, engine: TurnEngine, budgets: Budgets, core: Any) -> None:
        self._engine = engine
        self._budgets = budgets
        self._core = core
        self._before: Reading | None = None

    def collect(self) -> Iterator[Any]:
        """Families of metrics, as prometheus_client asks for them."""
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        reading, device = read_now(self._engine), self._engine.device
        yield counter("wattfed_energy_joules", "Since the device was opened.", reading.energy_j)
        power_w, self._before = reading.power_w(self._before), reading
        yield gauge("wattfed_power_watts", "Mean since the scrape before.", power_w)
        mode = gauge("wattfed_mode", "The power mode in force.", labels=["board", "mode"])
        mode.add_metric([device.board.name, reading.mode], 1)
        yield mode
        clocks = gauge("wattfed_mode_axis", "The mode's cores, kHz and Hz.", labels=["axis"])
        for axis, value in zip(
            ("cores", "cpu_khz", "gpu_hz", "mem_hz"), device.mode().values, strict=True
        ):
            clocks.add_metric([axis], value)
        yield clocks
        yield gauge("wattfed_load", "Share of the time that inference needs.", reading.engine.load)
        left = gauge(
            "wattfed_energy_budget_left_joules",
            "Of a federated client's energy budget, after its last round.",
            labels=["run", "client"],
        )
        for run, client, left_j in self._budgets():
            left.add_metric([run, str(client)], left_j)
        yield left
        queued = gauge("wattfed_queued", "Requests that wait.", labels=["workload"])
        for job in reading.engine.jobs:
            queued.add_metric([job.name], job.queued)
        yield queued
        for field, about in _ACCOUNT:
            family = counter(f"wattfed_{field}", about, labels=["workload"])
            for job in reading.engine.jobs:
                family.add_metric([job.name], asdict(job.account)[field])
            yield family


def _family(job: str) -> str:
    """A job without its number: holders and rounds come and go, and labels stay for ever."""
    if job.startswith("round "):
        return "round"
    return job.rpartition(":")[0] if job.startswith("gate:") else job
