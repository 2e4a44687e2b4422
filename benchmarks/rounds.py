"""What a warm agent saves of a federated round, against training in Flower's fresh process.

    python -m benchmarks.rounds --rounds 5 --json OUT

Flower starts a process for each message. Here a fresh one handles a query and another one a train
message, by the ClientApp's own functions and with what `flwr-clientapp` imports: once it trains
itself, once it is the messenger of an agent that runs here. Imported later is what torch and
scikit-learn load only when they are used; the rest is the interpreter, data, offer and messages.
What Flower does around that (fetching the app and the messages) is the same for both, and left
out.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch

from powerctl import console
from powerctl.errors import PowerctlError
from powerctl.progress import Progress
from wattfed.client.agent.opening import open_kept
from wattfed.client.agent.server import Agent
from wattfed.client.agent.settings import Settings
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.tasks.federated import federated
from wattfed.strategies.code_version import CODE, code_version
from wattfed.strategies.protocol import PROTOCOL, ROUND, VERSION, RoundAssignment, encode_record
from wattfed.strategies.run_config import RunConfig

_ROOT = Path(__file__).resolve().parents[1]
_DEVICE = "host:orin-agx"
_RUN_ID = 7
_PATIENCE_S = 600

_ONE_MESSAGE = """
import time
begun_s = time.perf_counter()
import builtins, json, sys
import flwr.supernode.cli  # as flwr-clientapp does
flower_s = time.perf_counter()
from wattfed.client.app import app
given = json.loads(sys.argv[1])
if "agent" in given["node_config"]:
    import wattfed.client.forwarding
else:
    import wattfed.client.in_process
imported_s = time.perf_counter()

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from powerctl.devices.host import HostDevice
try:
    from flwr.supercore.task_identity import TaskIdentity
    TaskIdentity.task_id = TaskIdentity.node_id = 1
    TaskIdentity.run_id = given["run_id"]
except ImportError:  # Flower before 1.38
    pass

minibatches_s, execute = [], HostDevice.execute
def timed(self, workload, step=None):
    minibatches_s.append(execute(self, workload, step))
    return minibatches_s[-1]
HostDevice.execute = timed

later_s, depth, import_module = 0.0, 0, builtins.__import__
def timed_import(*arguments, **keywords):
    global later_s, depth
    start_s, depth = time.perf_counter(), depth + 1
    try:
        return import_module(*arguments, **keywords)
    finally:
        depth -= 1
        later_s += 0 if depth else time.perf_counter() - start_s
builtins.__import__ = timed_import

content = RecordDict({"config": ConfigRecord(given["config"])})
if given["kind"] == "train":
    with np.load(given["arrays"]) as file:
        arrays = {name: Array.from_numpy_ndarray(file[name]) for name in file.files}
    content["arrays"] = ArrayRecord(arrays)
message = Message(content, dst_node_id=1, message_type=given["kind"])
context = Context(given["run_id"], 1, given["node_config"], RecordDict(), given["run_config"])
reply = app(message, context)
(record,) = reply.content.config_records.values()
print(json.dumps({
    "flower_s": flower_s - begun_s,
    "import_s": imported_s - flower_s,
    "later_s": later_s,
    "handle_s": time.perf_counter() - imported_s,
    "minibatches_s": minibatches_s,
    "minibatches": next(v for k, v in record.items() if k.endswith(".minibatches")),
    "torch": "torch" in sys.modules,
}))
"""


class Minibatches:
    """In place of the agent's metrics: seconds of each minibatch, by the name of the round."""

    def __init__(self) -> None:
        self.by_job: dict[str, list[float]] = defaultdict(list)

    def ran(self, job: str, size: int, ran_s: float, latencies_s: Sequence[float]) -> None:
        """A turn has ended."""
        self.by_job[job].append(ran_s)

    def refused(self, job: str, reason: str) -> None:
        """Nothing is refused here."""

    def serve(self, engine: TurnEngine, budgets: object, host: str, port: int) -> int:
        """Nobody asks over HTTP."""
        return port

    def close(self) -> None:
        """There is nothing to close."""


@contextmanager
def agent(folder: Path, minibatches: Minibatches) -> Iterator[str]:
    """An agent without models, on a loop of its own; gives its socket."""
    settings = Settings(
        device=_DEVICE,
        socket=str(folder / "a.sock"),
        state_dir=str(folder),
        metrics="127.0.0.1:0",
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def opened() -> Agent:
        made = Agent(settings, open_kept(settings.device, folder), minibatches)  # type: ignore[arg-type]
        await made.open()
        return made

    running = asyncio.run_coroutine_threadsafe(opened(), loop).result(_PATIENCE_S)
    try:
        yield settings.socket
    finally:
        asyncio.run_coroutine_threadsafe(running.close(), loop).result(_PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def handle(message: dict[str, Any]) -> dict[str, Any]:
    """Handle a message in a fresh process; what it says, and its wall seconds."""
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _ONE_MESSAGE, json.dumps(message)],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        timeout=_PATIENCE_S,
    )
    wall_s = time.perf_counter() - start_s
    if done.returncode:
        raise PowerctlError(f"the fresh process failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall_s}


def one_round(
    server_round: int, node: dict[str, Any], config: RunConfig, arrays: Path, seen: Minibatches
) -> list[dict[str, Any]]:
    """A row for the query and one for the training of a round."""
    told = {ROUND: server_round, PROTOCOL: VERSION, CODE: code_version()}
    message = {
        "run_id": _RUN_ID,
        "node_config": node,
        "run_config": config.to_flower(),
        "config": told,
        "arrays": str(arrays),
    }
    query = handle(message | {"kind": "query"})
    assignment = RoundAssignment(node["partition-id"], query["minibatches"], power="fastest")
    asked = told | encode_record(assignment)
    train = handle(message | {"kind": "train", "config": asked})
    if train["minibatches"] != query["minibatches"]:
        raise PowerctlError(f"only {train['minibatches']} of {query['minibatches']} minibatches")
    job = f"round {_RUN_ID}/{server_round}/{node['partition-id']}"
    train["minibatches_s"] = train["minibatches_s"] or seen.by_job[job]
    who = "agent" if "agent" in node else "fresh process"
    return [
        {"trains": who, "round": server_round, "message": kind, **_split(handled)}
        for kind, handled in (("query", query), ("train", train))
    ]


def _split(handled: dict[str, Any]) -> dict[str, Any]:
    times_s = handled.pop("minibatches_s") if handled["minibatches_s"] else []
    first_s, others_s = (times_s[0], sum(times_s[1:])) if times_s else (0.0, 0.0)
    imports_s = handled["flower_s"] + handled["import_s"] + handled["later_s"]
    return {
        **handled,
        "minibatches": len(times_s),
        "first_minibatch_s": first_s,
        "other_minibatches_s": others_s,
        "rest_s": handled["wall_s"] - imports_s - first_s - others_s,
    }


_PARTS = {
    "wall_s": "wall s",
    "flower_s": "import flwr s",
    "import_s": "import app s",
    "later_s": "import later s",
    "first_minibatch_s": "first minibatch s",
    "other_minibatches_s": "others s",
    "rest_s": "rest s",
}


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds; the agent's first round, in which it loads the data, by itself."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        first = row["trains"] == "agent" and row["round"] == 1
        groups[row["trains"] + ", first round" * first, row["message"]].append(row)
    told: list[dict[str, Any]] = []
    for (who, kind), group in groups.items():
        told.append({"trains": who, "message": kind, "rounds": len(group)})
        told[-1] |= {part: median(row[part] for row in group) for part in _PARTS}
    for who in dict.fromkeys(row["trains"] for row in told):
        both = [row for row in told if row["trains"] == who]
        told.append({"trains": who, "message": "both", "rounds": both[0]["rounds"]})
        told[-1] |= {part: sum(row[part] for row in both) for part in _PARTS}
    return sorted(
        told, key=lambda row: (row["message"] == "both", row["trains"] != "fresh process")
    )


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Local ones.")
@click.option("--clients", type=click.IntRange(1), default=2, show_default=True)
@click.option("--task", default="digits", show_default=True, help="A task whose data is at hand.")
@click.option("--data-dir", default="", help="Folder of its data.")
@click.option("--json", "json_path", type=click.Path(), help="Also write every row as JSON.")
def main(
    rounds: int, epochs: int, clients: int, task: str, data_dir: str, json_path: str | None
) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)  # as a client's own process does
    torch.manual_seed(0)
    config = RunConfig(task=task, data_dir=data_dir, local_epochs=epochs, dirichlet_alpha=5.0)
    node = {"partition-id": 0, "num-partitions": clients}
    seen, rows = Minibatches(), []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        arrays = folder / "global.npz"
        state = federated(RunConfig(task=task, data_dir=data_dir), 1).model().state_dict()
        np.savez(arrays, **{name: tensor.numpy() for name, tensor in state.items()})
        with agent(folder, seen) as socket:
            trainers = ({"device": _DEVICE}, {"agent": socket})
            with Progress("rounds", len(trainers) * rounds) as shown:
                for server_round, where in product(range(1, rounds + 1), trainers):
                    shown.update(note=f"round {server_round}, {next(iter(where))}")
                    rows += one_round(server_round, node | where, config, arrays, seen)
                    shown.update(len(rows) / 2)  # a query and a training each
    told = summary(rows)
    columns = {"trains": "who trains", "message": "message", **_PARTS}
    console.print_table(list(columns.values()), [[row[c] for c in columns] for row in told])
    both = {row["trains"]: row["wall_s"] for row in told if row["message"] == "both"}
    fresh_s, warm_s = both["fresh process"], both["agent"]
    n = next(row["minibatches"] for row in rows if row["message"] == "train")
    click.echo(
        f"{n} minibatches a round: the agent saves {fresh_s - warm_s:.3g} of {fresh_s:.3g} s "
        f"({100 * (1 - warm_s / fresh_s):.0f} %)"
    )
    if json_path:
        about = {"minibatches": n, "cores": os.cpu_count(), "torch": torch.__version__}
        told_all = {**about, "summary": told, "rounds": rows}
        Path(json_path).write_text(json.dumps(told_all, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
