"""Managed interleaving against native sharing, executed for real on this machine.

A small convolutional network serves Poisson arrivals while another trains, on the GPU if there is
one. Managed: the agent's engine gives turns. Native: as `benchmarks.sharing` says. Real networks,
served over gRPC: `benchmarks.gpu`.

What is left for training is what inference, in batches of the planned size, would leave of the rate
that training has alone; both are timed before and after each run, as a shared machine's speed
changes. Beside that, of managed runs: the share of the time not spent on inference in which
training ran, which no change of speed touches.
"""

from __future__ import annotations

import json
import math
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from benchmarks import sharing
from benchmarks.sharing import MODES, Request, Worker, modes_of, new_stream, on_stream
from benchmarks.traces import poisson
from powerctl import console
from powerctl.accelerator import Accelerator
from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.errors import InvalidInput
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.workload import Workload
from wattfed.client.agent.engine_jobs import EngineJob, Ticket, TicketAnswer, TicketRefusal
from wattfed.client.agent.turn_engine import TurnEngine

_TRAIN_BATCH = 16
_SIDE = 96
_WARMUPS, _RUNS = 5, 15


def network() -> nn.Module:
    """Three convolutions on photos of 96 x 96."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 32, 3, stride=2), nn.ReLU()),
        *(nn.Conv2d(32, 48, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(48, 10),
    )


@dataclass(frozen=True)
class Networks:
    """The networks, where they run."""

    accelerator: Accelerator

    def inference(self, *, own_stream: bool = False) -> Callable[[int], None]:
        """What runs one batch of a size."""
        place, device = self.accelerator, self.accelerator.device
        model, stream = place.place(network()).eval(), new_stream(place, own_stream)

        def infer(batch_size: int) -> None:
            with torch.inference_mode(), on_stream(place, stream):
                model(torch.zeros(batch_size, 3, _SIDE, _SIDE, device=device))

        return infer

    def training(self, *, own_stream: bool = False) -> Callable[[], None]:
        """What runs one minibatch."""
        place, device = self.accelerator, self.accelerator.device
        model, stream = place.place(network()), new_stream(place, own_stream)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        x = torch.randn(_TRAIN_BATCH, 3, _SIDE, _SIDE, device=device)
        y = torch.randint(10, (_TRAIN_BATCH,), device=device)

        def train() -> None:
            with on_stream(place, stream):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()

        return train


def timed(call: Callable[[], None]) -> float:
    """Median seconds of a call."""
    times_s = []
    for _ in range(_WARMUPS + _RUNS):
        start_s = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s[_WARMUPS:])


@dataclass(frozen=True)
class Load:
    """What is asked of the machine."""

    networks: Networks
    rate_hz: float
    latency_s: float
    batch_size: int
    seconds: float
    infer_s: dict[int, float]
    train_s: float
    seed: int


class Answers:
    """Latencies of what was answered; any thread may add."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.refused = 0

    def add(self, arrived_s: float) -> None:
        """A request that arrived then is answered now."""
        self.latencies_s.append(time.perf_counter() - arrived_s)

    def settle(self, arrived_s: float, outcome: TicketAnswer | TicketRefusal) -> None:
        """The engine has answered, or refused."""
        if isinstance(outcome, TicketAnswer):
            self.add(arrived_s)
        else:
            self.refused += 1


@dataclass(frozen=True)
class Run:
    """Requests, their answers, and minibatches a second; the share as in the module's docstring."""

    requests: int
    answers: Answers
    train_hz: float
    share_of_time_left: float = math.nan


def send(load: Load, request: Callable[[float], None]) -> int:
    """Requests at the times of a Poisson process; returns how many."""
    started, n = time.perf_counter(), 0
    for at_s in poisson(load.rate_hz, load.seconds, np.random.default_rng(load.seed)):
        time.sleep(max(0.0, started + at_s - time.perf_counter()))
        request(time.perf_counter())
        n += 1
    return n


class _Batches(EngineJob):
    """The engine's job of inference."""

    name = "infer"

    def __init__(self, networks: Networks) -> None:
        self._infer = networks.inference()

    def workload(self, size: int) -> Workload:
        return Workload(self.name, "infer", size)

    def run(self, tickets: Sequence[Ticket]) -> list[None]:
        self._infer(len(tickets))
        return [None] * len(tickets)


class _Minibatches(EngineJob):
    """The engine's job of training."""

    name = "train"

    def __init__(self, networks: Networks) -> None:
        self._train = networks.training()
        self.done = 0

    def workload(self, size: int) -> Workload:
        return Workload(self.name, "train", _TRAIN_BATCH)

    def run(self, tickets: Sequence[Ticket]) -> list[None]:
        self._train()
        self.done += 1
        return []


def managed(load: Load) -> Run:
    """With turns."""
    engine = TurnEngine(HostDevice(load_board("orin-agx")), Interleaver())
    work, answers = _Minibatches(load.networks), Answers()
    service = ServiceSpec(
        "infer", load.latency_s, load.batch_size, load.infer_s, rate_hz=load.rate_hz
    )
    engine.add_service(_Batches(load.networks), service)
    engine.add_training(work, TrainingJob("train", load.train_s))
    engine.start()
    engine.want("train")
    started = time.perf_counter()

    def request(now_s: float) -> None:
        engine.submit(Ticket("infer", None, load.latency_s, partial(answers.settle, now_s)))

    n = send(load, request)
    lasted_s = time.perf_counter() - started
    rate, busy_s = work.done / lasted_s, {j.name: j.account.busy_s for j in engine.state().jobs}
    time.sleep(load.latency_s)
    engine.stop("the benchmark ends", 5.0)
    return Run(n, answers, rate, busy_s["train"] / (lasted_s - busy_s["infer"]))


def native(load: Load, mode: str) -> Run:
    """With nobody giving turns."""
    own_stream, own_process = mode == "native-streams", mode == "native-processes"
    infer, answers = load.networks.inference(own_stream=own_stream), Answers()
    waiting: queue.Queue[Request | None] = queue.Queue()

    def serve() -> None:
        for batch in sharing.batches(waiting, load.batch_size, load.latency_s / 2):
            infer(len(batch))
            for request in batch:
                answers.add(request.arrived_s)

    server = threading.Thread(target=serve)
    with Worker(sharing.train, load.networks, own_stream, own_process=own_process) as trainer:
        server.start()
        before, started = trainer.done, time.perf_counter()
        n = send(load, lambda now_s: waiting.put(Request(now_s)))
        rate = (trainer.done - before) / (time.perf_counter() - started)
        waiting.put(None)
        server.join()
    return Run(n, answers, rate)


def alone(networks: Networks, seconds: float) -> float:
    """Minibatches a second with nothing else."""
    train = networks.training()
    train()
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        train()
        n += 1
    return n / (time.perf_counter() - started)


def speeds(load: Load, seconds: float) -> tuple[float, float]:
    """Seconds of a batch of the planned size, and minibatches a second with nothing else."""
    infer_s = timed(partial(load.networks.inference(), load.batch_size))
    return infer_s, alone(load.networks, seconds)


def run(mode: str, load: Load, alone_s: float) -> dict[str, Any]:
    """One row of the table."""
    before = speeds(load, alone_s)
    done = managed(load) if mode == "managed" else native(load, mode)
    infer_s, alone_hz = np.mean([before, speeds(load, alone_s)], axis=0)
    busy = load.rate_hz / load.batch_size * infer_s
    return {
        "mode": mode,
        "batch_size": load.batch_size,
        "rate_hz": load.rate_hz,
        "load_pct": 100 * busy,
        **sharing.seen(done.requests, done.answers.latencies_s, load.latency_s),
        "train_minibatches_per_s": done.train_hz,
        "train_minibatches_per_s_alone": alone_hz,
        "of_capacity_left_pct": 100 * done.train_hz / (alone_hz * max(1 - busy, 1e-9)),
        "of_time_left_pct": 100 * done.share_of_time_left,
    }


_COLUMNS = {
    "mode": "mode",
    "batch_size": "batch",
    "rate_hz": "rate /s",
    "load_pct": "load %",
    "requests": "requests",
    "answered": "answered",
    "within_budget_pct": "in budget %",
    "latency_p50_ms": "p50 ms",
    "latency_p99_ms": "p99 ms",
    "latency_max_ms": "max ms",
    "train_minibatches_per_s": "train /s",
    "of_capacity_left_pct": "of capacity left %",
    "of_time_left_pct": "of time left %",
}


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(f"cannot read {what} {text!r}; write numbers such as 30,60") from None


@click.command(help=__doc__)
@click.option("--seconds", default=20.0, show_default=True, help="Of each run.")
@click.option("--rate", default=30.0, show_default=True, help="Requests a second.")
@click.option("--load", "loads", help="Instead: per cent of what inference alone could serve.")
@click.option("--latency", default=0.1, show_default=True, help="Budget of a request, seconds.")
@click.option("--batch", default="1,4,16", show_default=True, help="Planned batch sizes.")
@click.option(
    "--cores",
    default=1,
    show_default=True,
    help="Of this machine: one, as there is one GPU on a Jetson; 0: all.",
)
@click.option(
    "--mode",
    "modes",
    default="all",
    show_default=True,
    help=f"Of {', '.join(MODES)}; the last needs a GPU.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    seconds: float,
    rate: float,
    loads: str | None,
    latency: float,
    batch: str,
    cores: int,
    modes: str,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    networks = Networks(Accelerator.here())
    names = modes_of(modes, networks.accelerator)
    sharing.prepare_process()
    torch.manual_seed(seed)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    infer = networks.inference()
    sizes = [int(size) for size in _numbers(batch, "--batch")]
    known = sorted({1, 2, 4, 8, 16, 32, *sizes})
    infer_s = {size: timed(partial(infer, size)) for size in known}
    train_s = timed(networks.training())
    rows = []
    for size in sizes:
        capacity_hz = size / infer_s[size]
        shares = _numbers(loads, "--load") if loads else [None]
        for share in shares:
            rate_hz = rate if share is None else share / 100 * capacity_hz
            load = Load(networks, rate_hz, latency, size, seconds, infer_s, train_s, seed)
            for name in names:
                click.echo(f"{name}, batch {size}, {rate_hz:.0f}/s", err=True)
                rows.append(run(name, load, max(0.5, seconds / 20)))
    console.print_table(list(_COLUMNS.values()), [[row[c] for c in _COLUMNS] for row in rows])
    times = ", ".join(f"{1e3 * infer_s[size]:.2g}" for size in sizes)
    click.echo(
        f"at the start, on {networks.accelerator.name}: inference {times} ms a batch, training "
        f"{1e3 * train_s:.2g} ms a minibatch; budget {1e3 * latency:g} ms"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
