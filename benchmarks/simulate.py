"""How fast a fleet is simulated: the engine of the virtual clock, and Flower's.

    python -m benchmarks.simulate --clients 1000 --per-round 100 --task noop --engine virtual,flower

Both run the same clients and the same strategy over the same fleet of four boards, each engine in
processes of its own. Flower's Simulation Runtime (Ray) is as the app uses it: every client is asked
for its offer in every round, by message. Seconds a round are wall time, the median of the rounds
after the first; what the first takes beyond that counts as start-up. The same in processor time of
all of an engine's processes says more where others keep the machine busy. Memory is the highest
sum of proportional set sizes over an engine's processes.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

from powerctl import console
from powerctl.errors import InvalidInput
from powerctl.progress import Progress
from wattfed.strategies.policies.catalogue import POLICIES
from wattfed.strategies.run_config import RunConfig

_ROOT = Path(__file__).resolve().parents[1]
_BOARDS = ("orin-agx", "orin-nx", "orin-nano", "xavier-nx")
_PERIOD_S = 0.2  # of looking at memory, and at Flower's rounds


def fleet_file(folder: Path, clients: int) -> Path:
    """A fleet of so many clients, evenly of four boards."""
    counts = [len(range(i, clients, len(_BOARDS))) for i in range(len(_BOARDS))]
    groups = [
        f'[[group]]\nboard = "{board}"\ncount = {count}\n'
        for board, count in zip(_BOARDS, counts, strict=True)
        if count
    ]
    path = folder / "fleet.toml"
    path.write_text("\n".join(groups), encoding="utf-8")
    return path


class Moment(NamedTuple):
    """When a row was there: seconds since an engine began, and its processor time until then."""

    wall_s: float
    cpu_s: float


def run_virtual(config: RunConfig, began_s: float) -> list[Moment]:
    """The moments of the initial model's row and of each round's end."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_virtual, args=(config, there))
    child.start()
    there.close()
    try:
        return [Moment(at_s - began_s, cpu_s) for at_s, cpu_s in here.recv()]
    except EOFError:
        raise InvalidInput("the simulation failed; see above") from None
    finally:
        child.join()


def _virtual(config: RunConfig, reply: Connection) -> None:
    from wattfed.server.engines.simulation import simulate

    ends: list[tuple[float, float]] = []

    def note(row: object) -> None:
        workers = (child.pid for child in multiprocessing.active_children() if child.pid)
        ends.append((time.time(), time.process_time() + sum(map(_cpu_of_s, workers))))

    simulate(config, note)
    reply.send(ends)


def run_flower(config: RunConfig, began_s: float) -> list[Moment]:
    """The same by Flower; rounds end when their rows appear."""
    from wattfed.server.engines.flower_run import run_on_flower

    ends: list[Moment] = []

    def watch() -> None:
        rows = Path(config.out_dir) / config.run_name / "rounds.csv"
        while len(ends) <= config.rounds and not over.wait(_PERIOD_S / 10):
            if rows.exists() and rows.read_text().count("\n") > len(ends) + 1:
                cpu_s = sum(map(_cpu_of_s, descendants()))
                ends.append(Moment(time.time() - began_s, cpu_s))

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        n_clients = config.min_nodes
        run_on_flower(_ROOT, n_clients, config.to_flower(), relay=lambda line: None)
    finally:
        over.set()
        watcher.join()
    return ends


_ENGINES: dict[str, Callable[[RunConfig, float], list[Moment]]] = {
    "virtual": run_virtual,
    "flower": run_flower,
}


@contextmanager
def memory_watched() -> Iterator[list[float]]:
    """Megabytes of this process's descendants, the highest so far, in a list of one."""
    highest = [0.0]

    def watch() -> None:
        while not over.wait(_PERIOD_S):
            highest[0] = max(highest[0], sum(map(_proportional_mb, descendants())))

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        over.set()
        watcher.join()


def descendants() -> list[int]:
    """Processes that this one has started, and those that they have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
    family, size = {os.getpid()}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return sorted(family - {os.getpid()})


def _cpu_of_s(pid: int) -> float:
    """Processor time of a process so far; 0 of one that has ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measured(engine: str, config: RunConfig, clients: int) -> dict[str, Any]:
    """One engine's row."""
    began_s = time.time()
    with memory_watched() as highest_mb:
        ends = _ENGINES[engine](config, began_s)
    peak_mb = highest_mb[0]
    if engine == "virtual":  # a short run ends between two looks
        peak_mb = max(peak_mb, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    round_s, round_cpu_s = map(_round_s, zip(*ends, strict=True))
    with open(Path(config.out_dir) / config.run_name / "rounds.csv", encoding="utf-8") as file:
        trained = [int(row["reported"]) for row in csv.DictReader(file) if row["reported"]]
    return {
        "engine": engine,
        "clients": clients,
        "per_round": config.per_round,
        "rounds": config.rounds,
        "client_rounds_per_s": median(trained) / round_s,
        "client_rounds_per_cpu_s": median(trained) / round_cpu_s,
        "seconds_per_round": round_s,
        "startup_s": ends[1].wall_s - round_s,
        "peak_mb": peak_mb,
        "task": config.task,
        "strategy": config.strategy,
        "local_epochs": config.local_epochs,
    }


def _round_s(ends_s: Sequence[float]) -> float:
    """What a round takes: the median of those after the first."""
    took_s = [after - before for before, after in pairwise(ends_s)]
    return median(took_s[1:] or took_s)


def _engines(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(_ENGINES):
        raise click.BadParameter(f"no engine {', '.join(unknown)}; there are virtual and flower")
    return names


@click.command(help=__doc__)
@click.option("--clients", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--per-round", type=click.IntRange(1), default=100, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--task", default="noop", show_default=True)
@click.option("--engine", "engines", default="virtual,flower", callback=_engines, show_default=True)
@click.option(
    "--strategy", type=click.Choice(POLICIES.names()), default="random", show_default=True
)
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True, help="Local ones.")
@click.option(
    "--workers", default="0", metavar="N|ray", help="As wattfed simulate has it; 0: as it pays."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    clients: int,
    per_round: int,
    rounds: int,
    task: str,
    engines: list[str],
    strategy: str,
    epochs: int,
    workers: str,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    rows = []
    for engine in engines:
        with tempfile.TemporaryDirectory() as text, Progress(engine):
            config = RunConfig(
                task=task,
                fleet=str(fleet_file(Path(text), clients)),
                strategy=strategy,
                rounds=rounds,
                per_round=per_round,
                local_epochs=epochs,
                seed=seed,
                min_nodes=clients,
                out_dir=text,
                name=engine,
                timeout_s=3600.0,
                checkpoint_every=0,
            )
            rows.append(measured(engine, config.changed(workers=workers), clients))
    columns = list(rows[0])
    console.print_table(columns, [[row[column] for column in columns] for row in rows])
    if len(rows) == 2:
        one, other = rows
        wall, cpu = (one[k] / other[k] for k in ("client_rounds_per_s", "client_rounds_per_cpu_s"))
        click.echo(
            f"{one['engine']} is {wall:.3g} times as fast as {other['engine']} "
            f"({cpu:.3g} times by processor time)"
        )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
