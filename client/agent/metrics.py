"""Prometheus metrics of the agent, at an HTTP port of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from powerctl.errors import DeviceUnavailable, InvalidInput
from wattfed.client.agent.telemetry import Reading, read
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


class Metrics:
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
        """A turn has ended."""
        job = _family(job)
        self._batch.labels(job).observe(size)
        self._turn.labels(job).observe(ran_s)
        latency = self._latency.labels(job)
        for latency_s in latencies_s:
            latency.observe(latency_s)

    def refused(self, job: str, reason: str) -> None:
        """A request was refused."""
        self._refused.labels(_family(job), reason).inc()

    def serve(self, engine: TurnEngine, budgets: Budgets, host: str, port: int) -> int:
        """Answer Prometheus at an address; returns the port (of 0, the one that was free)."""
        self.registry.register(_State(engine, budgets, self._core))
        try:
            self._server, _ = self._prometheus.start_http_server(port, host, self.registry)
        except OSError as error:
            raise InvalidInput(f"no metrics at {host}:{port}: {error.strerror}") from None
        return int(self._server.server_port)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _histogram(self, name: str, about: str, buckets: Sequence[float]) -> Any:
        return self._prometheus.Histogram(
            f"wattfed_{name}", about, ("workload",), buckets=buckets, registry=self.registry
        )


class _State:
    """What the engine and the device know by themselves, read at each scrape."""

    def __init__(self, engine: TurnEngine, budgets: Budgets, core: Any) -> None:
        self._engine = engine
        self._budgets = budgets
        self._core = core
        self._before: Reading | None = None

    def collect(self) -> Iterator[Any]:
        """Families of metrics, as prometheus_client asks for them."""
        gauge, counter = self._core.GaugeMetricFamily, self._core.CounterMetricFamily
        reading, device = read(self._engine), self._engine.device
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
                family.add_metric([job.name], getattr(job.account, field))
            yield family


def _family(job: str) -> str:
    """A job without its number: holders and rounds come and go, and labels stay for ever."""
    if job.startswith("round "):
        return "round"
    return job.rpartition(":")[0] if job.startswith("gate:") else job
