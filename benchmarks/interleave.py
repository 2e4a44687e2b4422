"""Managed interleaving against native sharing, executed for real on this machine.

A small convolutional network serves Poisson arrivals while another trains, on the GPU if there is
one. Managed: the agent's engine gives turns. Native: inference and training run at will, in two
threads or two processes, and the operating system shares the cores; or in two threads with a CUDA
stream each. What waits is dispatched as one batch, full or not.

What is left for training is what inference, in batches of the planned size, would leave of the rate
that training has alone; both are timed before and after each run, as a shared machine's speed
changes. Beside that, of managed runs: the share of the time not spent on inference in which
training ran, which no change of speed touches.
"""

from __future__ import annotations

import ctypes
import json
import math
import multiprocessing
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from powerctl import console
from powerctl.accelerator import Accelerator
from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.errors import DeviceUnavailable, InvalidInput, UnknownName
from powerctl.fulcrum.arrivals import poisson
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import Service, Training
from powerctl.workload import Workload
from wattfed.client.agent.engine import Engine
from wattfed.client.agent.tickets import Answer, Refusal, Ticket

MODES = ("managed", "native-threads", "native-processes", "native-streams")
_TRAIN_BATCH = 16
_SIDE = 96
_WARMUPS, _RUNS = 5, 15
_KEEP = {-1: 2**31 - 1, -4: 0, -8: 1}  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX


def keep_memory() -> None:
    """Keep what is freed, as torch keeps a GPU's memory.

    By itself glibc gives large tensors back to the system, in some threads more than in others:
    a minibatch faults its pages in anew, and takes longer in a turn than alone.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in _KEEP.items():
            mallopt(option, value)


def network() -> nn.Module:
    """Three convolutions on photos of 96 x 96."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 32, 3, stride=2), nn.ReLU()),
        *(nn.Conv2d(32, 48, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(48, 10),
    )


def where() -> torch.device:
    """The GPU if there is one."""
    return Accelerator.here().device


@contextmanager
def on_gpu(stream: Any) -> Iterator[None]:
    """Work on a stream of the GPU, or with None on the default one; ends when that has ended."""
    if where().type == "cpu":
        yield
        return
    with torch.cuda.stream(stream):
        yield
        torch.cuda.current_stream().synchronize()


def new_stream(own: bool) -> Any:
    """A CUDA stream, if one is wanted."""
    return torch.cuda.Stream() if own else None


def inference(*, own_stream: bool = False) -> Callable[[int], None]:
    """What runs one batch of a size."""
    model, stream = network().eval().to(where()), new_stream(own_stream)

    def infer(batch_size: int) -> None:
        with torch.inference_mode(), on_gpu(stream):
            model(torch.zeros(batch_size, 3, _SIDE, _SIDE, device=where()))

    return infer


def training(*, own_stream: bool = False) -> Callable[[], None]:
    """What runs one minibatch."""
    model, stream = network().to(where()), new_stream(own_stream)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(_TRAIN_BATCH, 3, _SIDE, _SIDE, device=where())
    y = torch.randint(10, (_TRAIN_BATCH,), device=where())

    def train() -> None:
        with on_gpu(stream):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
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

    def settle(self, arrived_s: float, outcome: Answer | Refusal) -> None:
        """The engine has answered, or refused."""
        if isinstance(outcome, Answer):
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


class _Batches:
    """The engine's job of inference."""

    name = "infer"

    def __init__(self) -> None:
        self._infer = inference()

    def workload(self, size: int) -> Workload:
        return Workload(self.name, "infer", size)

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Nothing: `run` follows."""

    def run(self, tickets: Sequence[Ticket]) -> list[None]:
        self._infer(len(tickets))
        return [None] * len(tickets)

    def ended(self) -> None:
        """Nothing is left to do."""


class _Minibatches:
    """The engine's job of training."""

    name = "train"

    def __init__(self) -> None:
        self._train = training()
        self.done = 0

    def workload(self, size: int) -> Workload:
        return Workload(self.name, "train", _TRAIN_BATCH)

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Nothing: `run` follows."""

    def run(self, tickets: Sequence[Ticket]) -> list[None]:
        self._train()
        self.done += 1
        return []

    def ended(self) -> None:
        """Nothing is left to do."""


def managed(load: Load) -> Run:
    """With turns."""
    engine = Engine(HostDevice(load_board("orin-agx")), Interleaver())
    work, answers = _Minibatches(), Answers()
    service = Service("infer", load.latency_s, load.batch_size, load.infer_s, rate_hz=load.rate_hz)
    engine.add_service(_Batches(), service)
    engine.add_training(work, Training("train", load.train_s))
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


class ThreadTrainer(AbstractContextManager["ThreadTrainer"]):
    """Trains in a thread, at will; on a CUDA stream of its own if it is to."""

    def __init__(self, *, own_stream: bool = False) -> None:
        self.done = 0
        self._train = training(own_stream=own_stream)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> ThreadTrainer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._train()
            self.done += 1


class ProcessTrainer(AbstractContextManager["ProcessTrainer"]):
    """Trains in a process of its own, at will."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._done, self._stop, self._ready = spawn.Value("q", 0), spawn.Event(), spawn.Event()
        arguments = (self._done, self._stop, self._ready)
        self._process = spawn.Process(target=_train_until, args=arguments)

    def __enter__(self) -> ProcessTrainer:
        self._process.start()
        self._ready.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._process.join()

    @property
    def done(self) -> int:
        """Minibatches so far."""
        return int(self._done.value)


def _train_until(done: Any, stop: Any, ready: Any) -> None:
    torch.set_num_threads(1)
    keep_memory()
    train = training()
    train()
    ready.set()
    while not stop.is_set():
        train()
        done.value += 1


def native(load: Load, trainer: ThreadTrainer | ProcessTrainer, *, own_stream: bool = False) -> Run:
    """With nobody giving turns."""
    infer, answers = inference(own_stream=own_stream), Answers()
    waiting: queue.Queue[float | None] = queue.Queue()

    def serve() -> None:
        while (first := waiting.get()) is not None:
            batch = [first]
            give_up_s = first + load.latency_s / 2  # for the batch to fill
            while len(batch) < load.batch_size:
                try:
                    one = waiting.get(timeout=max(0.0, give_up_s - time.perf_counter()))
                except queue.Empty:
                    break
                if one is None:
                    waiting.put(None)
                    break
                batch.append(one)
            infer(len(batch))
            for arrived_s in batch:
                answers.add(arrived_s)

    server = threading.Thread(target=serve)
    with trainer:
        server.start()
        before, started = trainer.done, time.perf_counter()
        n = send(load, waiting.put)
        rate = (trainer.done - before) / (time.perf_counter() - started)
        waiting.put(None)
        server.join()
    return Run(n, answers, rate)


def alone(seconds: float) -> float:
    """Minibatches a second with nothing else."""
    train = training()
    train()
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        train()
        n += 1
    return n / (time.perf_counter() - started)


def speeds(load: Load, seconds: float) -> tuple[float, float]:
    """Seconds of a batch of the planned size, and minibatches a second with nothing else."""
    return timed(partial(inference(), load.batch_size)), alone(seconds)


def run(mode: str, load: Load, alone_s: float) -> dict[str, Any]:
    """One row of the table."""
    before = speeds(load, alone_s)
    if mode == "managed":
        done = managed(load)
    elif mode == "native-processes":
        done = native(load, ProcessTrainer())
    else:
        own = mode == "native-streams"
        done = native(load, ThreadTrainer(own_stream=own), own_stream=own)
    infer_s, alone_hz = np.mean([before, speeds(load, alone_s)], axis=0)
    n, latencies_s = done.requests, np.array(done.answers.latencies_s or [np.nan])
    busy = load.rate_hz / load.batch_size * infer_s
    return {
        "mode": mode,
        "batch_size": load.batch_size,
        "rate_hz": load.rate_hz,
        "load_pct": 100 * busy,
        "requests": n,
        "answered": len(done.answers.latencies_s),
        "within_budget_pct": 100 * float(np.sum(latencies_s <= load.latency_s)) / max(n, 1),
        "latency_p50_ms": 1e3 * float(np.percentile(latencies_s, 50)),
        "latency_p99_ms": 1e3 * float(np.percentile(latencies_s, 99)),
        "latency_max_ms": 1e3 * float(latencies_s.max()),
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


def _modes(text: str) -> list[str]:
    """The modes asked for; without a GPU there are no streams, and by default none are tried."""
    if text == "all":
        return list(MODES if where().type == "cuda" else MODES[:-1])
    for name in text.split(","):
        if name not in MODES:
            raise UnknownName("mode", name, MODES)
    if "native-streams" in text and where().type != "cuda":
        raise DeviceUnavailable(
            "native-streams shares a GPU by CUDA streams, and torch sees no GPU here "
            f"(torch {torch.__version__}); leave that mode out"
        )
    return text.split(",")


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
    names = _modes(modes)
    torch.set_num_threads(1)
    keep_memory()
    torch.manual_seed(seed)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    infer = inference()
    sizes = [int(size) for size in _numbers(batch, "--batch")]
    known = sorted({1, 2, 4, 8, 16, 32, *sizes})
    infer_s = {size: timed(partial(infer, size)) for size in known}
    train_s = timed(training())
    rows = []
    for size in sizes:
        capacity_hz = size / infer_s[size]
        shares = _numbers(loads, "--load") if loads else [None]
        for share in shares:
            rate_hz = rate if share is None else share / 100 * capacity_hz
            load = Load(rate_hz, latency, size, seconds, infer_s, train_s, seed)
            for name in names:
                click.echo(f"{name}, batch {size}, {rate_hz:.0f}/s", err=True)
                rows.append(run(name, load, max(0.5, seconds / 20)))
    console.print_table(list(_COLUMNS.values()), [[row[c] for c in _COLUMNS] for row in rows])
    times = ", ".join(f"{1e3 * infer_s[size]:.2g}" for size in sizes)
    click.echo(
        f"at the start, on {where()}: inference {times} ms a batch, training "
        f"{1e3 * train_s:.2g} ms a minibatch; budget {1e3 * latency:g} ms"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
