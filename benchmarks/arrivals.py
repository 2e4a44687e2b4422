"""How well the window controller follows a rate that changes, on measured tables.

    python -m benchmarks.arrivals --train T.csv --infer I.csv --power 30 --latency 0.5

Each trace is served under four plans: the controller's; one for the mean rate and one for the peak
(of windows of the controller's length), each searched once by the same solver; and the oracle's,
which by brute force plans anew for every window, whose rate it knows beforehand. The server is
that of benchmarks.trace_serving: probing modes takes no time in it, but is counted; joules are
of batches and minibatches, waiting left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.random import Generator

from benchmarks import traces as arrivals
from benchmarks.configurations import load_replay
from benchmarks.trace_serving import Oracle, Planner, Static, serve
from powerctl import console
from powerctl.boards import load_board
from powerctl.errors import UnknownName
from powerctl.fulcrum.controller import Reaction, Serving, WindowController, at_rate
from powerctl.fulcrum.problems import OBJECTIVES, Concurrent, InferAlone
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.solvers import Solver, find_solver, solver_names
from powerctl.progress import Progress

Trace = Callable[[float, float, Generator], Iterator[float]]  # of mean rate and length

# Shapes are of the mean rate r: steps r/2, 3r/2, r; a day in the length of the trace, +-80 %;
# bursts of four times the calm rate, 20 s in 80 on average.
TRACES: Mapping[str, Trace] = {
    "constant": lambda rate, length, rng: arrivals.constant(rate, length),
    "poisson": arrivals.poisson,
    "step": lambda rate, length, rng: arrivals.steps(
        [(share * rate, length / 3) for share in (0.5, 1.5, 1.0)], rng
    ),
    "diurnal": lambda rate, length, rng: arrivals.diurnal(rate, 0.8, length, length, rng),
    "bursty": lambda rate, length, rng: arrivals.bursts(rate, 4.0, 20.0, 60.0, length, rng),
}


def make_trace(name: str, rate_hz: float, length_s: float, seed: int) -> list[float]:
    """A trace of a name; raises `UnknownName` for others."""
    if name not in TRACES:
        raise UnknownName("trace", name, TRACES)
    return list(TRACES[name](rate_hz, length_s, np.random.default_rng(seed)))


def peak_hz(trace: Sequence[float], window_s: float) -> float:
    """The highest rate of windows, one after another."""
    numbers = (np.array(trace) / window_s).astype(int)
    return float(np.bincount(numbers).max()) / window_s


def evaluate(
    problem: Serving,
    replay: Replay,
    trace: Sequence[float],
    make_solver: Callable[[], Solver],
    reaction: Reaction,
) -> list[dict[str, Any]]:
    """Serve one trace under each plan; a row for each."""

    def controller(rate_hz: float) -> WindowController:
        expected = at_rate(problem, rate_hz)
        measured = replay.candidates, replay.measure
        return WindowController(expected, *measured, make_solver(), reaction=reaction)

    mean_hz = len(trace) / trace[-1]
    following = controller(mean_hz)
    for_mean, for_peak = controller(mean_hz), controller(peak_hz(trace, reaction.window_s))
    oracle = Oracle(problem, replay, trace, reaction)
    plans: list[tuple[str, Planner, WindowController | None]] = [
        ("controller", following, following),
        ("static, mean", Static(for_mean.present), for_mean),
        ("static, peak", Static(for_peak.present), for_peak),
        ("oracle", oracle, None),
    ]
    rows = []
    for name, planner, searched in plans:
        served = serve(trace, planner, replay, problem)
        rows.append(
            {
                "plan": name,
                "requests": served.requests,
                "late_pct": served.late_pct,
                "p99_latency_s": served.p99_latency_s,
                "over_power_pct": 100 * served.over_power_s / served.duration_s,
                "train_rate_hz": served.other_rate_hz,
                "energy_j": served.energy_j,
                "switches": served.switches,
                "solves": oracle.solves if searched is None else searched.solves,
                "modes_profiled": len(replay.candidates) if searched is None else searched.profiled,
            }
        )
    return rows


_COLUMNS = {
    "trace": "trace",
    "plan": "plan",
    "requests": "requests",
    "late_pct": "late %",
    "p99_latency_s": "p99 (s)",
    "over_power_pct": "over power %",
    "train_rate_hz": "training/s",
    "energy_j": "energy (J)",
    "switches": "switches",
    "solves": "plans",
    "modes_profiled": "modes",
}


@click.command(help=__doc__)
@click.option("--train", help="Table of training; without, inference alone.")
@click.option("--infer", required=True, help="Table of inference.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of the tables.")
@click.option("--power", "power_w", type=float, default=30.0, show_default=True, help="Watts.")
@click.option("--latency", "latency_s", type=float, default=0.5, show_default=True)
@click.option("--rate", "rate_hz", type=float, default=60.0, show_default=True, help="The mean.")
@click.option(
    "--trace",
    "names",
    default="constant,step,diurnal,bursty",
    show_default=True,
    help=", ".join(TRACES),
)
@click.option("--length", "length_s", type=float, default=600.0, show_default=True, help="Seconds.")
@click.option("--window", "window_s", type=float, default=10.0, show_default=True, help="Seconds.")
@click.option("--probes", type=click.IntRange(0), default=3, show_default=True)
@click.option(
    "--solver", "solver_name", default="default", show_default=True, help=", ".join(solver_names())
)
@click.option("--cap", type=click.IntRange(1), default=15, show_default=True, help="First plan.")
@click.option("--objective", default="rate", show_default=True, type=click.Choice(OBJECTIVES))
@click.option(
    "--grid", default="published", show_default=True, type=click.Choice(["published", "all"])
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    train: str | None,
    infer: str,
    board: str,
    power_w: float,
    latency_s: float,
    rate_hz: float,
    names: str,
    length_s: float,
    window_s: float,
    probes: int,
    solver_name: str,
    cap: int,
    objective: str,
    grid: str,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    kind = "infer" if train is None else "concurrent"
    replay = load_replay(kind, {"train": train, "infer": infer}, load_board(board), grid)
    bounds = (power_w, rate_hz, latency_s, replay.batch_sizes("infer"))
    problem = InferAlone(*bounds) if train is None else Concurrent(*bounds, objective=objective)
    quick_s = window_s / 5
    reaction = Reaction(window_s=window_s, quick_s=quick_s, probes=probes, first_cap=cap)
    entry = find_solver(solver_name)
    rows = []
    traces = names.split(",")
    with Progress("traces", len(traces)) as shown:
        for done, name in enumerate(traces, start=1):
            trace = make_trace(name, rate_hz, length_s, seed)
            shown.update(note=f"{name}: {len(trace):,} requests")
            found = evaluate(problem, replay, trace, lambda: entry.make(seed, None), reaction)
            rows += [{"trace": name, **row} for row in found]
            shown.update(done)
    console.print_table(list(_COLUMNS.values()), [[row[key] for key in _COLUMNS] for row in rows])
    click.echo(
        f"{problem.describe()}, on {len(replay.candidates)} modes of {board}; late: over "
        f"{latency_s:g} s; modes: measured, of the oracle all"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
