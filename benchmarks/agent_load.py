"""An agent under full load: what becomes of every request, and of its memory.

    python -m benchmarks.agent_load --requests 10000 --clients 64

An agent in a process of its own serves a small convolutional network. Each client has a connection
and sends its next request when it has the answer to the last, be it a refusal. Memory is the
agent's resident set, before the first request, after a tenth of them, and at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import torch

from powerctl import console
from powerctl.errors import PowerctlError
from wattfed.client.agent import rpc
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tensors import encode_tensor
from wattfed.client.tasks.federated import federated
from wattfed.strategies.run_config import RunConfig

_ROOT = Path(__file__).resolve().parents[1]
_TIMEOUT_S, _END_S, _LOOK_S = 600.0, 20.0, 0.05


@contextmanager
def agent(folder: Path, *options: str, limit_s: float = _TIMEOUT_S) -> Iterator[tuple[str, int]]:
    """An agent with options of `wattfed-agent serve`; its socket and process number.

    It is killed where it does not end; one that does not serve within the limit is an error.
    """
    socket, log = str(folder / "a.sock"), folder / "agent.log"
    command = [sys.executable, "-m", "wattfed.client.agent.cli", "serve", "--socket", socket]
    command += ["--state-dir", str(folder / "state"), "--threads", "1", *options]
    give_up_s = time.monotonic() + limit_s
    with log.open("w") as written:
        process = subprocess.Popen(command, cwd=_ROOT, stderr=written)
    try:
        while "serving at" not in log.read_text():
            if process.poll() is not None or time.monotonic() > give_up_s:
                raise PowerctlError(f"the agent does not serve:\n{log.read_text()}")
            time.sleep(_LOOK_S)
        yield socket, process.pid
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serving_digits(folder: Path, latency_s: float, form: str = "state-dict") -> tuple[str, ...]:
    """The options of an agent that serves digits in a format."""
    model, path = federated(RunConfig(task="digits"), 1).model().eval(), folder / "digits.pt"
    if form == "state-dict":
        torch.save(model.state_dict(), path)
        return "--model", f"digits={path},task=digits,latency={1e3 * latency_s:g}ms"
    torch.jit.script(model).save(str(path))  # type: ignore[no-untyped-call]
    return "--model", f"digits={path},inputs=1x8x8,latency={1e3 * latency_s:g}ms"


def resident_mb(process: int) -> float:
    """Of a process, its resident set."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def load(socket: str, requests: int, clients: int, process: int) -> dict[str, Any]:
    """Send the requests; statuses, latencies and memory."""
    sample = encode_tensor(next(iter(federated(RunConfig(task="digits"), 1).central)).inputs[0])
    statuses: Counter[str] = Counter()
    latencies_s: list[float] = []
    numbers, memory_mb = count(), [resident_mb(process)]

    async def client() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix:{socket}", options) as channel:
            predict = rpc.InferenceStub(channel).Predict
            while (number := next(numbers)) < requests:
                if number == requests // 10:
                    memory_mb.append(resident_mb(process))
                start_s = time.perf_counter()
                try:
                    await predict(pb.PredictRequest(inputs=[sample]), timeout=_TIMEOUT_S)
                    statuses["OK"] += 1
                    latencies_s.append(time.perf_counter() - start_s)
                except grpc.aio.AioRpcError as error:
                    statuses[error.code().name] += 1

    start_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took_s = time.perf_counter() - start_s
    memory_mb.append(resident_mb(process))
    p50_ms, p99_ms = 1e3 * np.percentile(latencies_s or [np.nan], (50, 99))
    return {
        "requests": requests,
        "clients": clients,
        "statuses": dict(statuses),
        "lost": requests - sum(statuses.values()),
        "requests_per_s": requests / took_s,
        "latency_p50_ms": float(p50_ms),
        "latency_p99_ms": float(p99_ms),
        "memory_mb": memory_mb,
    }


def run(
    requests: int, clients: int, latency_s: float = 0.1, form: str = "state-dict"
) -> dict[str, Any]:
    """Start an agent, and load it."""
    with tempfile.TemporaryDirectory() as folder:
        options = serving_digits(Path(folder), latency_s, form)
        with agent(Path(folder), *options) as (socket, process):
            return asyncio.run(load(socket, requests, clients, process))


@click.command(help=__doc__)
@click.option("--requests", type=click.IntRange(10), default=10_000, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=64, show_default=True)
@click.option("--latency", default=0.1, show_default=True, help="Budget of a request, seconds.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("state-dict", "torchscript")),
    default="state-dict",
    show_default=True,
    help="Of the model: in the agent's process, or in one of its own.",
)
@click.option("--json", "json_path", type=click.Path(), help="Also write it as JSON.")
def main(requests: int, clients: int, latency: float, form: str, json_path: str | None) -> None:
    """Run the benchmark."""
    found = run(requests, clients, latency, form)
    statuses = ", ".join(f"{n} {name}" for name, n in sorted(found["statuses"].items()))
    console.print_table(
        ("requests", "clients", "lost", "per s", "p50 ms", "p99 ms", "MB before", "at 10 %", "end"),
        [
            (
                *(requests, clients, found["lost"], found["requests_per_s"]),
                *(found["latency_p50_ms"], found["latency_p99_ms"], *found["memory_mb"]),
            )
        ],
    )
    click.echo(statuses)
    if json_path:
        Path(json_path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
