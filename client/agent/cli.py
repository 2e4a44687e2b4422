"""The `wattfed-agent` command: serve, and look at and try an agent that serves."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.progress import Progress
from powerctl.stopping import Stopped

if TYPE_CHECKING:
    from wattfed.client.agent.own_tasks import OwnTasks
    from wattfed.client.agent.proto import agent_pb2 as pb

_EXAMPLES = """\b
Examples:
  wattfed-agent serve --model digits=model.pt,task=digits
  wattfed-agent serve --device host:orin-agx --latency 50ms --batch 8 \\
    --model detector=detector.ts,inputs=3x224x224,latency=80ms --metrics-port 9464
  wattfed-agent serve --device twin:orin-agx --power 30 --training mobilenetv3-train \\
    --model digits=model.pt,task=digits,workload=mobilenetv3-infer
  wattfed-agent serve --config agent.toml --listen 0.0.0.0:7443 \\
    --tls-cert cert.pem --tls-key key.pem --token-file tokens
  wattfed-agent status
  wattfed-agent top
  wattfed-agent predict digits --count 100
  wattfed-agent task add my_task.py
"""
_MEASURED_S = 0.3  # of power, for a status
_ANSWER_S = 60.0  # a board that does much else answers late
_SETTINGS = {"help_option_names": ["-h", "--help"]}


@click.group("wattfed-agent", epilog=_EXAMPLES, context_settings=_SETTINGS)
def cli() -> None:
    """The process on a device that serves inference, hands out turns, and trains."""


@cli.command(epilog=_EXAMPLES)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; flags go before it.")
@click.option("--device", help="host:BOARD runs here in the name of a board. [host:orin-agx]")
@click.option("--mode", help="Power mode or preset to begin with; by default the one found.")
@click.option("--socket", help="Unix socket. [$XDG_RUNTIME_DIR/wattfed-agent.sock]")
@click.option("--listen", metavar="HOST:PORT", help="TCP too, which needs the three files below.")
@click.option("--tls-cert", metavar="PEM", help="Certificate chain.")
@click.option("--tls-key", metavar="PEM", help="Its key.")
@click.option("--token-file", metavar="FILE", help="Bearer tokens, one a line.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=PATH[,...]",
    help="TorchScript (inputs=3x224x224), torch.export (.pt2) or a state dict (task=digits); "
    "also latency=, batch=, largest=, workload=. Can be repeated.",
)
@click.option(
    "--latency",
    "latency_s",
    type=console.Quantity("time"),
    help="Latency limit of a request, for models without their own. [100ms]",
)
@click.option("--batch", "batch_size", type=click.IntRange(1), help="Planned batch. [1]")
@click.option(
    "--power",
    "power_w",
    type=console.Quantity("power"),
    help="Choose mode and batch size within this power limit: 30, 30W.",
)
@click.option("--training", help="Choose them so that this workload trains most. [least latency]")
@click.option(
    "--learn",
    "task",
    metavar="TASK",
    help="Measure modes for a task of `task list` in idle time. [none]",
)
@click.option("--metrics-port", "metrics", metavar="[HOST:]PORT", help="Prometheus metrics.")
@click.option("--state-dir", help="Folder for what the agent keeps. [~/.local/state/wattfed-agent]")
@click.option(
    "--lease",
    "lease_s",
    type=console.Quantity("duration"),
    help="Longest turn of another process, unless it asks for more. [2s]",
)
@click.option(
    "--rate-limit",
    "rate_hz",
    type=console.Quantity("rate"),
    help="Most requests of one client: 30, 30/s, 90/min.",
)
@click.option("--accelerator", help="Where models are kept: auto, cpu or cuda[:N]. [auto]")
@click.option("--threads", type=click.IntRange(0), help="Threads of torch. [torch's default]")
@click.option(
    "--allow-unsafe-models",
    is_flag=True,
    default=None,
    help="Run TorchScript and torch.export without a sandbox, as your user.",
)
def serve(config: Path | None, **flags: Any) -> None:
    """Serve until SIGTERM; then finish the turn, refuse waiting requests and restore the device."""
    from wattfed.client.agent.settings import read_settings

    if flags["metrics"] and ":" not in flags["metrics"]:
        flags["metrics"] = f"127.0.0.1:{flags['metrics']}"
    settings = read_settings(config, **flags)
    logging.basicConfig(level=logging.INFO, format="wattfed-agent: %(message)s")
    with Progress("starting"):
        from wattfed.client.agent.server import serve as run  # torch takes seconds

    asyncio.run(run(settings, lambda where: click.echo(f"serving at {where}", err=True)))


def _reaching(command: Any) -> Any:
    """The options by which a command reaches an agent."""
    for option in (
        click.option("--token-file", default="", help="For TCP."),
        click.option("--ca", "ca_file", default="", help="PEM certificates to trust, for TCP."),
        click.option("--address", default="", metavar="HOST:PORT", help="TCP, for the socket."),
        click.option("--socket", default="", help="Unix socket of the agent."),
    ):
        command = option(command)
    return command


def _connect(socket: str, **others: str) -> Any:
    from wattfed.client.agent.connecting import connect
    from wattfed.client.agent.settings import default_agent_socket

    return connect(socket or default_agent_socket(), **others)


@cli.command()
@_reaching
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(as_json: bool, **where: str) -> None:
    """What an agent serves, and how it does."""
    from wattfed.client.agent import rpc
    from wattfed.client.agent.proto import agent_pb2 as pb
    from wattfed.client.agent.top import status_lines

    with _connect(**where) as channel:
        request = pb.TelemetryRequest(period_s=_MEASURED_S)
        *_, now = islice(rpc.PowerStub(channel).Telemetry(request, timeout=_ANSWER_S), 2)
        models = rpc.InferenceStub(channel).ListModels(pb.ListModelsRequest(), timeout=_ANSWER_S)
    if as_json:
        from google.protobuf.json_format import MessageToDict

        named = {"preserving_proto_field_name": True}
        print_both = {"status": MessageToDict(now, **named), **MessageToDict(models, **named)}
        console.print_json(print_both)
        return
    for line in status_lines(now):
        click.echo(line)
    if models.models:
        click.echo()
        console.print_table(
            ("model", "version", "format", "in", "latency ms", "batch", "largest", "source"),
            [_model_row(model) for model in models.models],
        )
        for model in models.models:
            if model.broken:
                click.echo(model.broken)
    if now.tasks:
        click.echo()
        console.print_table(
            ("task", "from", "modes", "in idle time", "last", "time +-%", "power +-%"),
            [_task_row(task) for task in now.tasks],
        )
        for task in now.tasks:
            if task.aside_modes:
                click.echo(
                    f"{task.workload} takes {task.aside_factor:.3g} times as long as it was "
                    f"measured before: {task.aside_modes} modes were set aside"
                )
    if now.jobs:
        click.echo()
        console.print_table(
            ("job", "arrived", "answered", "in time", "late", "full", "p50 ms", "p99 ms", "busy s"),
            [_job_row(job) for job in now.jobs],
        )


def _model_row(model: pb.Model) -> tuple[object, ...]:
    planned = (1e3 * model.latency_s, model.batch_size, model.largest_batch)
    return (model.name, model.version, model.format, model.isolation, *planned, model.source)


def _job_row(job: pb.JobStatus) -> tuple[object, ...]:
    counts = (job.arrived, job.answered, job.within, job.rejected_late, job.rejected_full)
    name = f"{job.name} (left)" if job.left else job.name
    return (name, *counts, _ms(job.latency_p50_s), _ms(job.latency_p99_s), job.busy_s)


def _task_row(task: pb.TaskCosts) -> tuple[object, ...]:
    last = datetime.fromtimestamp(task.measured_at_s).strftime("%Y-%m-%d %H:%M")
    modes = (task.modes, task.idle_modes, last) if task.modes else ("-", "-", "-")
    return (task.workload, task.origin, *modes, 100 * task.time_std, 100 * task.power_std)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if math.isfinite(seconds) else "-"


@cli.command("top")
@_reaching
@click.option("--every", type=console.Quantity("duration"), default="1s", help="Period. [1s]")
@click.option(
    "--frames",
    type=click.IntRange(0, 1_000_000),
    default=0,
    help="End after so many. [0, in a pipe 1]",
)
def show_top(every: float, frames: int, **where: str) -> None:
    """A live view of an agent."""
    from rich.console import Console

    from wattfed.client.agent import rpc
    from wattfed.client.agent.proto import agent_pb2 as pb
    from wattfed.client.agent.top import show_live

    with _connect(**where) as channel:
        request = pb.TelemetryRequest(period_s=every)
        with suppress(Stopped):
            show_live(rpc.PowerStub(channel).Telemetry(request), Console(), frames)


@cli.command()
@click.argument("model", default="")
@_reaching
@click.option("--count", type=click.IntRange(1), default=1, help="Requests, one after another.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random inputs.")
def predict(model: str, count: int, seed: int, **where: str) -> None:
    """Send a model random inputs, and say what came back and how long it took."""
    from wattfed.client.agent import rpc
    from wattfed.client.agent.trying import try_model

    with _connect(**where) as channel:
        tried = try_model(rpc.InferenceStub(channel), model, count, seed)
    click.echo(f"{tried.model} version {tried.version}: outputs {', '.join(tried.outputs)}")
    console.print_table(
        ("requests", "refused", "p50 ms", "p99 ms", "batch"),
        [(count, tried.refused, 1e3 * tried.p50_s, 1e3 * tried.p99_s, tried.batch_size)],
    )


@cli.group()
def task() -> None:
    """Tasks of your own, which the agent may load: by the hash of their files."""


def _listing(command: Any) -> Any:
    """The option that says whose list it is."""
    about = "Of the agent. [~/.local/state/wattfed-agent]"
    return click.option("--state-dir", default="", help=about)(command)


def _own_tasks(state_dir: str) -> OwnTasks:
    from wattfed.client.agent.own_tasks import OwnTasks
    from wattfed.client.agent.settings import default_state_dir

    return OwnTasks(Path(state_dir or default_state_dir()))


@task.command()
@click.argument("text", metavar="FILE|pkg.mod")
@_listing
def add(text: str, state_dir: str) -> None:
    """Let federated rounds train a task, as long as its files stay as they are now.

    The agent need not run, or be restarted. A file that has changed is added again.
    """
    own = _own_tasks(state_dir).add(text)
    click.echo(f"{own.name}, hash {own.shown_hash}: {', '.join(own.files)} in {own.folder}")


@task.command("list")
@_listing
def list_tasks(state_dir: str) -> None:
    """What the agent may load."""
    console.print_table(
        ("task", "hash", "from", "files"),
        [
            (own.name, own.shown_hash, own.source, "as added" if own.is_unchanged() else "changed")
            for own in _own_tasks(state_dir).listed()
        ],
    )


@task.command()
@click.argument("which", metavar="NAME|HASH")
@_listing
def remove(which: str, state_dir: str) -> None:
    """Take a task off the list; a round that trains it goes on to its end."""
    for own in _own_tasks(state_dir).remove(which):
        click.echo(f"removed {own.name}, hash {own.shown_hash}")


def main() -> None:
    """Run the command that the arguments name."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it logs, our one line says
    console.run(cli)


if __name__ == "__main__":
    main()
