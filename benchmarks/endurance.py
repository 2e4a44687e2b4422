"""Whether anything grows: memory and open files over 500 simulated rounds, and under agent load.

    python -m benchmarks.endurance --rounds 500 --requests 216000 --json endurance.json

The simulation runs in this process, with a checkpoint after every round. The agent, in a process of
its own, does what an hour with 60 requests a second and a federated round a minute asks of it, as
fast as it can, in ten parts: each with connections of its own, and a federation of its own. Memory
is the resident set: the median of each tenth of the simulated rounds, and what it is after each
part of the agent's hour. Open files are the fewest of each tenth: a checkpoint may be under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.agent_load import agent, load, resident_mb, serving_digits
from benchmarks.in_process_grid import InProcessGrid
from powerctl import console
from wattfed.client.app import app as client_app
from wattfed.client.forwarding import AGENT
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.federation import NoClients
from wattfed.server.run.history import RoundRow
from wattfed.strategies.run_config import RunConfig

_LATENCY_S = 0.1


def descriptors(process: int) -> int:
    """Open files and sockets of a process."""
    return len(os.listdir(f"/proc/{process}/fd"))


def simulation(rounds: int, task: str, strategy: str = "pace") -> dict[str, Any]:
    """Simulate so many rounds; memory and descriptors of each tenth of them."""
    seen: list[tuple[float, int]] = []

    def look(row: RoundRow) -> None:
        seen.append((resident_mb(os.getpid()), descriptors(os.getpid())))

    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        simulate(
            RunConfig(
                task=task,
                strategy=strategy,
                rounds=rounds,
                local_epochs=1,
                workers=1,
                out_dir=folder,
            ),
            look,
        )
        took_s = time.perf_counter() - start_s
    edges = [1 + rounds * i // 10 for i in range(11)]
    tenths = [seen[a:b] for a, b in pairwise(edges)]
    return {
        "what": f"simulated rounds of {task}",
        "number": rounds,
        "took_s": took_s,
        "memory_mb": [median(mb for mb, _ in tenth) for tenth in tenths],
        "descriptors": [min(n for _, n in tenth) for tenth in tenths],
    }


def agent_load(requests: int, rounds: int, clients: int) -> dict[str, Any]:
    """Load an agent, and train on it; its memory and descriptors after each of ten parts."""
    memory_mb, open_files, lost, trained = [], [], 0, 0
    start_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = serving_digits(Path(folder), _LATENCY_S)
        with agent(Path(folder), *options) as (socket, process):
            for part in range(10):
                lost += asyncio.run(load(socket, requests // 10, clients, process))["lost"]
                trained += train(socket, rounds // 10, part, folder)
                memory_mb.append(resident_mb(process))
                open_files.append(descriptors(process))
    return {
        "what": "requests and rounds of an agent",
        "number": requests + rounds,
        "took_s": time.perf_counter() - start_s,
        "memory_mb": memory_mb,
        "descriptors": open_files,
        "lost": lost,
        "rounds_trained": trained,
    }


def train(socket: str, rounds: int, seed: int, folder: str) -> int:
    """A federation of one node, whose agent trains; in how many rounds it found the time to."""
    config = RunConfig(rounds=rounds, seed=seed, strategy="all", local_epochs=1, out_dir=folder)
    grid = InProcessGrid(client_app, 1, config.to_flower())
    (node,) = grid.get_node_ids()
    grid.context(node).node_config[AGENT] = socket
    try:
        entries = run_federation(grid, config).ledger.entries
    except NoClients as error:
        click.echo(error, err=True)
        return 0
    return sum(entry.reported for entry in entries)


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(10), default=500, show_default=True)
@click.option("--task", default="digits", show_default=True, help="What the clients learn.")
@click.option("--requests", type=click.IntRange(10), default=216_000, show_default=True)
@click.option("--agent-rounds", type=click.IntRange(10), default=60, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=64, show_default=True, help="Agent's.")
@click.option("--json", "json_path", type=click.Path(), help="Also write it as JSON.")
def main(
    rounds: int, task: str, requests: int, agent_rounds: int, clients: int, json_path: str | None
) -> None:
    """Run the benchmark."""
    found = [simulation(rounds, task), agent_load(requests, agent_rounds, clients)]
    console.print_table(
        ("", "number", "s", "MB, first tenth", "last", "files, first tenth", "last"),
        [
            (
                *(one["what"], one["number"], one["took_s"]),
                *(one["memory_mb"][0], one["memory_mb"][-1]),
                *(one["descriptors"][0], one["descriptors"][-1]),
            )
            for one in found
        ],
    )
    if json_path:
        Path(json_path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
