"""Training and serving on an NVIDIA GPU: two real networks, their energy, and who gives turns.

    python -m benchmarks.gpu --seconds 200 --json gpu.json

ResNet-18 and a small BERT are trained alone, each in a process of its own. Then ResNet-18 serves
Poisson arrivals over gRPC beside BERT, which trains. Managed: a real `wattfed-agent serve`, which
also trains, in a federated round, and gives both their turns. Native: as `benchmarks.sharing` says,
behind the same protocol. Requests come from this process, which leaves the GPU alone; a latency is
from when a request was due to its answer here.

Energy is the GPU board's, by NVML, over the time that a row is of; null where nothing measures it.
No setting of the GPU is touched. Without a GPU this is a rehearsal on the CPU, of small networks,
and says so. `benchmarks/gpu_wheels.sh` is for a machine that reaches no registry.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import torch
from torch import Tensor

from benchmarks import gpu_task, sharing
from benchmarks.agent_load import agent
from benchmarks.in_process_grid import InProcessGrid
from benchmarks.sharing import MODES, Control, Request, Worker, new_stream, on_stream
from benchmarks.traces import poisson
from powerctl import console
from powerctl.accelerator import Accelerator, choose_accelerator
from powerctl.devices.meters import Meter, open_meter
from powerctl.errors import DeviceUnavailable, InvalidInput, PowerctlError
from wattfed.client.agent import rpc
from wattfed.client.agent.connecting import connect
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.served_models import read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import decode_tensor, encode_tensor
from wattfed.client.app import app as client_app
from wattfed.client.forwarding import AGENT
from wattfed.server.engines.flower import run_federation
from wattfed.strategies.run_config import RunConfig

Serving = tuple[str, Callable[[], int]]  # the socket, and minibatches trained so far
SERVED, TRAINED = gpu_task.NETWORKS
_START_S, _END_S, _LOOK_S = 600.0, 2.0, 0.1  # a machine that does much else starts slowly
_SHORTEST = 1 / 20  # of all seconds, for a measurement whose start has taken too long
_SWITCH_S = 0.0005  # as the agent has it, so that threads do not wait for the interpreter
_FIRST_TURNS = 5  # of a round, which do not count
_FIRST_RUNS = 3  # of each batch size: memory is taken and kernels are chosen
_EPOCHS = 1_000_000  # more than there is time for
_BUSY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True)
class Network:
    """A network to train, or to serve from a file; it is sent to the process that does."""

    name: str
    size: str
    accelerator: Accelerator
    file: str = ""

    def training(self, *, own_stream: bool = False) -> Callable[[], None]:
        """What runs one minibatch, to its end."""
        place = self.accelerator
        model = place.place(gpu_task.make_model(self.name, self.size)).train()
        optimizer = gpu_task.make_optimizer(model)
        loader = gpu_task.load_data(self.name, self.size)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        stream = new_stream(place, own_stream)

        def minibatch() -> None:
            with on_stream(place, stream):
                gpu_task.train_step(model, next(batches), optimizer, place.device)

        return minibatch

    def inference(self, *, own_stream: bool = False) -> Callable[[Sequence[Tensor]], list[Tensor]]:
        """What runs a batch of samples, as the agent runs it."""
        choose_accelerator(self.accelerator.name)
        stream = new_stream(self.accelerator, own_stream)
        model = read_model(ModelFile(self.name, self.file))

        def infer(samples: Sequence[Tensor]) -> list[Tensor]:
            with on_stream(self.accelerator, stream):
                return [output for (output,) in model.predict([(one,) for one in samples])]

        return infer

    def sample(self) -> Tensor:
        """A photo."""
        side = gpu_task.SIZES[self.size].side
        return torch.randint(256, (3, side, side), dtype=torch.uint8)

    def save(self, file: str) -> Network:
        """The network as a file to be served."""
        batch = {0: torch.export.Dim("batch")}
        model = gpu_task.make_model(self.name, self.size).eval()
        example = torch.stack([self.sample()] * 2)
        program = torch.export.export(model, (example,), dynamic_shapes=(batch,))
        torch.export.save(program, file)
        return replace(self, file=file)


@dataclass(frozen=True)
class Load:
    """What is asked of what serves."""

    rate_hz: float
    latency_s: float
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Window:
    """When a part should end, how long it measures at least, and what measures its energy."""

    end_s: float
    shortest_s: float
    meter: Meter

    def measure(
        self, done: Callable[[], int], during: Callable[[float], Any]
    ) -> tuple[Any, dict[str, Any]]:
        """What comes of calling something with the seconds that are left, and what was trained."""
        seconds = max(self.shortest_s, self.end_s - _END_S - time.monotonic())
        began, began_j, began_s = done(), self.meter.energy_j(), time.perf_counter()
        found = during(seconds)
        took_s, took_j = time.perf_counter() - began_s, self.meter.energy_j() - began_j
        minibatches = done() - began
        return found, {
            "seconds": took_s,
            "minibatches": minibatches,
            "minibatches_per_s": minibatches / took_s,
            "energy_j": None if math.isnan(took_j) else took_j,
        }


def train_alone(network: Network, window: Window) -> dict[str, Any]:
    """The row of a network that trains with nothing beside."""
    with Worker(sharing.train, network, own_process=True, limit_s=_START_S) as trainer:
        _, row = window.measure(lambda: trainer.done, time.sleep)
    energy_j, minibatches = row.pop("energy_j"), row["minibatches"]
    each_j = energy_j / minibatches if energy_j is not None and minibatches else None
    origin = gpu_task.origin(network.name)
    return {"model": network.name, "origin": origin, **row, "energy_j_per_minibatch": each_j}


def serve_beside(
    mode: str, served: Network, trained: Network, load: Load, window: Window
) -> dict[str, Any]:
    """The row of a mode."""
    with tempfile.TemporaryDirectory() as folder:
        begin = managed if mode == "managed" else partial(native, mode)
        with begin(Path(folder), served, trained, load) as (socket, done):
            send_for = partial(send, socket, served.sample(), load)
            latencies_s, row = window.measure(done, lambda s: asyncio.run(send_for(s)))
    known_s = [latency_s for latency_s in latencies_s if latency_s is not None]
    return {
        "mode": mode,
        **sharing.seen(len(latencies_s), known_s, load.latency_s),
        "seconds": row["seconds"],
        "train_minibatches_per_s": row["minibatches_per_s"],
        "energy_j": row["energy_j"],
    }


async def send(socket: str, sample: Tensor, load: Load, seconds: float) -> list[float | None]:
    """Send requests as they arrive; the latency of each, or None if it was not answered."""
    request = pb.PredictRequest(inputs=[encode_tensor(sample)])
    patience_s = max(1.0, 10 * load.latency_s)
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        predict = rpc.InferenceStub(channel).Predict
        began_s = time.perf_counter()

        async def ask(due_s: float) -> float | None:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            try:
                await predict(request, timeout=patience_s)
            except grpc.aio.AioRpcError as error:
                if error.code() in _BUSY:
                    return None
                raise DeviceUnavailable(f"what serves has failed: {error.details()}") from None
            return time.perf_counter() - due_s

        arrivals = poisson(load.rate_hz, seconds, np.random.default_rng(load.seed))
        return await asyncio.gather(*(ask(began_s + at_s) for at_s in arrivals))


@contextmanager
def managed(folder: Path, served: Network, trained: Network, load: Load) -> Iterator[Serving]:
    """An agent that serves the one network, and trains the other in a federated round."""
    OwnTasks(folder / "state").add(gpu_task.__file__)
    sizes = f"batch={load.batch_size},largest={load.batch_size}"
    options = ["--model", f"{served.name}={served.file},latency={load.latency_s}s,{sizes}"]
    options += ["--accelerator", served.accelerator.name]
    config = RunConfig(
        task=gpu_task.__file__,
        settings=(("kind", trained.name), ("size", trained.size)),
        strategy="all",
        rounds=1,
        per_round=1,
        local_epochs=_EPOCHS,
        evaluate="clients",
        evaluate_every=2,
        out_dir=str(folder),
    )
    grid = InProcessGrid(client_app, 1, config.to_flower())
    (node,) = grid.get_node_ids()
    # the agent ends before the pool is waited for: with it ends the round
    with ThreadPoolExecutor(1) as pool, agent(folder, *options, limit_s=_START_S) as (socket, _):
        grid.context(node).node_config[AGENT] = socket
        run = pool.submit(run_federation, grid, config)
        with connect(socket) as channel:
            power = rpc.PowerStub(channel)

            def done() -> int:
                jobs = power.GetStatus(pb.StatusRequest(), timeout=_START_S).jobs
                return sum(job.turns for job in jobs if job.kind == pb.TRAIN)

            give_up_s = time.monotonic() + _START_S
            while done() < _FIRST_TURNS:
                if run.done() or time.monotonic() > give_up_s:
                    why = run.exception() if run.done() else f"no turn within {_START_S:g} s"
                    log = (folder / "agent.log").read_text()
                    raise DeviceUnavailable(f"the agent does not train: {why}\n{log}")
                time.sleep(_LOOK_S)
            yield socket, done


@contextmanager
def native(
    mode: str, folder: Path, served: Network, trained: Network, load: Load
) -> Iterator[Serving]:
    """A process that serves the one network, beside which the other trains at will."""
    socket, apart = str(folder / "n.sock"), mode == "native-processes"
    start = partial(Worker, own_process=True, limit_s=_START_S)
    beside = start(sharing.train, trained) if apart else nullcontext()
    arguments = (served, None if apart else trained, load, socket, mode == "native-streams")
    with start(serve_natively, *arguments) as server, beside as trainer:
        yield socket, lambda: (trainer or server).done


def serve_natively(
    control: Control,
    served: Network,
    trained: Network | None,
    load: Load,
    socket: str,
    own_streams: bool,
) -> None:
    """Serve until told to stop, and train in another thread if there is what to train."""
    sharing.prepare_process()
    sys.setswitchinterval(_SWITCH_S)
    infer = served.inference(own_stream=own_streams)
    for size in (*range(1, load.batch_size + 1),) * _FIRST_RUNS:
        infer([served.sample()] * size)
    waiting: queue.Queue[Request | None] = queue.Queue()

    def serve() -> None:
        for batch in sharing.batches(waiting, load.batch_size, load.latency_s / 2):
            outputs = infer([request.inputs[0] for request in batch])
            for request, output in zip(batch, outputs, strict=True):
                request.answer(output)

    beside: AbstractContextManager[object] = nullcontext()
    if trained is not None:
        within = Control(done=control.done)
        beside = Worker(sharing.train, trained, own_streams, own_process=False, control=within)
    with beside:
        thread = threading.Thread(target=serve)
        thread.start()
        asyncio.run(_listen(control, socket, waiting))
        waiting.put(None)
        thread.join()


async def _listen(control: Control, socket: str, waiting: queue.Queue[Request | None]) -> None:
    """Answer the agent's protocol until told to stop."""
    server = grpc.aio.server()
    rpc.add_service(server, "Inference", _Queued(waiting))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    control.ready.set()
    while not control.stop.is_set():
        await asyncio.sleep(_LOOK_S)
    await server.stop(None)


class _Queued:
    """Puts requests into a queue, and sends the answers on."""

    def __init__(self, waiting: queue.Queue[Request | None]) -> None:
        self._waiting = waiting

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictReply:
        """The outputs of one sample."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Tensor] = loop.create_future()

        def told(output: Tensor) -> None:
            if not answered.done():
                answered.set_result(output)

        def answer(output: Tensor) -> None:
            loop.call_soon_threadsafe(told, output)

        inputs = [decode_tensor(tensor) for tensor in request.inputs]
        self._waiting.put(Request(time.perf_counter(), inputs, answer))
        return pb.PredictReply(outputs=[encode_tensor(await answered)])


def meter_of(accelerator: Accelerator) -> Meter:
    """What measures the energy of a GPU, or of this CPU."""
    if not accelerator.is_gpu:
        return open_meter("cpu")
    return open_meter("cuda", str(torch.cuda.get_device_properties(accelerator.device).uuid))


def run(
    accelerator: Accelerator, size: str, modes: Sequence[str], load: Load, seconds: float
) -> Iterator[dict[str, Any]]:
    """All of it, within about the seconds, as far as it is after each part; failures are told."""
    end_s = time.monotonic() + seconds
    networks = [Network(name, size, accelerator) for name in gpu_task.NETWORKS]
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(accelerator.device) if accelerator.is_gpu else None,
        "accelerator": accelerator.name,
        "torch": torch.__version__,
        "size": size,
        "served": SERVED,
        "trained_beside": TRAINED,
        "rate_hz": load.rate_hz,
        "latency_ms": 1e3 * load.latency_s,
        "batch_size": load.batch_size,
        "training": [],
        "interleave": [],
        "failed": [],
    }
    with tempfile.TemporaryDirectory() as folder, meter_of(accelerator) as meter:
        found["energy"] = meter.name
        served = networks[0].save(str(Path(folder, "served.pt2")))
        parts = [("training", n.name, partial(train_alone, n)) for n in networks]
        for mode in modes:
            beside = partial(serve_beside, mode, served, networks[1], load)
            parts.append(("interleave", mode, beside))
        for number, (kind, name, part) in enumerate(parts):
            click.echo(f"{kind}: {name}", err=True)
            share_s = (end_s - time.monotonic()) / (len(parts) - number)
            try:
                found[kind].append(
                    part(Window(time.monotonic() + share_s, max(1.0, _SHORTEST * seconds), meter))
                )
            except PowerctlError as error:
                click.echo(f"{name} failed: {error}", err=True)
                found["failed"].append({"part": name, "why": str(error)})
            yield found


_TRAINING = {
    "model": "model",
    "origin": "from",
    "minibatches_per_s": "minibatches /s",
    "energy_j_per_minibatch": "J each",
}
_INTERLEAVE = {
    "mode": "mode",
    "requests": "requests",
    "answered": "answered",
    "within_budget_pct": "in budget %",
    "latency_p50_ms": "p50 ms",
    "latency_p99_ms": "p99 ms",
    "train_minibatches_per_s": "train /s",
    "seconds": "over s",
    "energy_j": "J",
}


def show(found: dict[str, Any]) -> None:
    """Print both tables, and what they were measured on."""
    for columns, rows in ((_TRAINING, found["training"]), (_INTERLEAVE, found["interleave"])):
        cells = [[math.nan if row[c] is None else row[c] for c in columns] for row in rows]
        console.print_table(list(columns.values()), cells)
        click.echo()
    what = found["gpu"] or "no GPU: a rehearsal on the CPU, no figure of which says anything of one"
    click.echo(
        f"{what}; torch {found['torch']}, networks of size {found['size']}; energy: "
        f"{found['energy']}; {found['served']} serves {found['rate_hz']:g} requests a second "
        f"within {found['latency_ms']:g} ms, {found['trained_beside']} trains"
    )


@click.command(help=__doc__)
@click.option(
    "--seconds",
    default=200.0,
    show_default=True,
    help="Of all of it, or a bit more: each start takes up to 45 s.",
)
@click.option("--accelerator", default="auto", show_default=True, help="cpu, or cuda[:N].")
@click.option(
    "--size",
    type=click.Choice(list(gpu_task.SIZES)),
    help="Of the networks. [full on a GPU]",
)
@click.option("--rate", default=100.0, show_default=True, help="Requests a second.")
@click.option("--latency", default=0.05, show_default=True, help="Budget of a request, seconds.")
@click.option("--batch", default=4, show_default=True, help="Planned batch size.")
@click.option("--mode", "modes", default="all", show_default=True, help=f"Of {', '.join(MODES)}.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write it as JSON.")
def main(
    seconds: float,
    accelerator: str,
    size: str | None,
    rate: float,
    latency: float,
    batch: int,
    modes: str,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    given = {"--seconds": seconds, "--rate": rate, "--latency": latency, "--batch": batch}
    for flag, number in given.items():
        if not 0 < number < math.inf:
            raise InvalidInput(f"{flag} must be positive, got {number:g}")
    place = Accelerator.of(accelerator)
    names = sharing.modes_of(modes, place)
    choose_accelerator("cpu")  # of the server, which is in this process
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    size = size or ("full" if place.is_gpu else "rehearsal")
    for found in run(place, size, names, Load(rate, latency, batch, seed), seconds):
        if json_path:  # what is there already, should the rest be stopped
            Path(json_path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show(found)
    if found["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    console.run(main)
