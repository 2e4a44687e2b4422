"""Managed interleaving on virtual time: deadlines missed, training beside, on measured tables.

    python -m benchmarks.interleave_virtual --train T.csv --infer I.csv --loads 30,60,80 --batch all

For modes spread along the time-power front of training, and every planned batch size b: Poisson
arrivals at a share of b / t_infer(b), what the mode can answer in such batches. The latency budget
is a margin times b / rate + t_infer(b) + t_train: to fill a batch, to run it, and a training
minibatch in the way. Times are exact (a variation of 0) or lognormal around the table's.

Random arrivals can be more than any server could meet. Where requests were missed, the trace is
tried on one that knows it in advance and does not train (`benchmarks.clairvoyant`): misses that
it would have had as well are told apart.

Training is held against what is left of the device after inference: as it was planned, 1 - load,
and as it was run, with batches larger and smaller than planned.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import traces as arrivals
from benchmarks.clairvoyant import can_be_met
from benchmarks.configurations import load_replay
from benchmarks.virtual_time import Execution
from benchmarks.virtual_time import replay as play
from powerctl import console
from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.durations import BatchTimes
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.modes import FloatArray
from powerctl.pareto import pareto_front, thinned


@dataclass(frozen=True)
class Scenario:
    """One mode, one planned batch, one load."""

    mode: str
    power_w: float
    infer_s: dict[int, float]
    train_s: float
    batch: int
    load: float
    margin: float

    @property
    def rate_hz(self) -> float:
        """Mean arrivals in a second."""
        return self.load * self.batch / self.infer_s[self.batch]

    @property
    def latency_s(self) -> float:
        """The budget of a request."""
        filled_s = self.batch / self.rate_hz
        return self.margin * (filled_s + self.infer_s[self.batch] + self.train_s)

    def interleaver(self, variation: float, largest: str) -> Interleaver:
        """The policy with the plan; with exact times it is told that they are."""
        top = self.batch if largest == "planned" else max(self.infer_s)
        times = {size: seconds for size, seconds in self.infer_s.items() if size <= top}
        service = ServiceSpec(
            "infer", self.latency_s, self.batch, times, self.rate_hz, capacity=10_000
        )
        training = TrainingJob("train", self.train_s)
        return Interleaver([service], [training], spread=0.05 if variation else 0.0)


def scenarios(
    replay: Replay, modes: int, batches: Sequence[int], loads: Sequence[float], margin: float
) -> Iterator[Scenario]:
    """Every combination, over modes spread along the front."""
    sizes = replay.batch_sizes("infer")
    train_s, train_w = (column[:, 0] for column in replay.columns((Job("train"),)))
    infer_s, infer_w = replay.columns(tuple(Job("infer", size) for size in sizes))
    power_w: FloatArray = np.maximum(train_w, infer_w.max(axis=1))
    front = pareto_front(train_s, power_w)
    for i in thinned(front, train_s, min(modes, len(front))):
        times = dict(zip(sizes, infer_s[i].tolist(), strict=True))
        mode = str(replay.record.modes.mode(int(i)))
        for batch in batches:
            for load in loads:
                yield Scenario(
                    mode, float(power_w[i]), times, float(train_s[i]), batch, load, margin
                )


def execute(
    scenario: Scenario, variation: float, seconds: float, seed: int, largest: str
) -> dict[str, Any]:
    """Serve one trace; what came of it."""
    key = [seed, scenario.batch, round(100 * scenario.load)]
    trace = list(arrivals.poisson(scenario.rate_hz, seconds, np.random.default_rng(key)))
    execution = Execution(
        {"infer": scenario.infer_s, "train": {1: scenario.train_s}},
        variation,
        np.random.default_rng([*key, 1]),
    )
    policy = scenario.interleaver(variation, largest)
    policy.want("train")
    started = time.perf_counter()
    record = play(policy, {"infer": trace}, execution, seconds)
    wall_s = time.perf_counter() - started
    served, trained = record.services["infer"], record.training["train"]
    times = BatchTimes(scenario.infer_s)
    met = not served.missed or can_be_met(trace, scenario.latency_s, times)
    return {
        **{name: value for name, value in asdict(scenario).items() if name != "infer_s"},
        "infer_s": scenario.infer_s[scenario.batch],
        "latency_s": scenario.latency_s,
        "variation": variation,
        "requests": served.requests,
        "missed": served.missed,
        "avoidable": served.missed if met else 0,
        "rejected": served.refused,
        "p50_of_budget": served.latency_pct_s(50) / scenario.latency_s,
        "p99_of_budget": served.latency_pct_s(99) / scenario.latency_s,
        "mean_batch": served.answered / max(served.batches, 1),
        "train_hz": trained.rate_hz,
        "train_of_left_pct": 100 * record.share_of_left,
        "train_of_planned_pct": 100 * record.training_share / (1 - scenario.load),
        "events": served.requests + served.batches + trained.minibatches,
        "wall_s": wall_s,
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over the modes of one planned batch, load and variation, or of more."""
    requests, missed = (sum(row[name] for row in rows) for name in ("requests", "missed"))
    return {
        "scenarios": len(rows),
        "requests": requests,
        "missed": missed,
        "missed_pct": 100 * missed / max(requests, 1),
        "avoidable": sum(row["avoidable"] for row in rows),
        "p50_of_budget": float(np.median([row["p50_of_budget"] for row in rows])),
        "p99_of_budget": max(row["p99_of_budget"] for row in rows),
        "train_of_left_pct": float(np.mean([row["train_of_left_pct"] for row in rows])),
        "train_of_left_min_pct": min(row["train_of_left_pct"] for row in rows),
        "train_of_planned_pct": float(np.mean([row["train_of_planned_pct"] for row in rows])),
        "train_of_planned_min_pct": min(row["train_of_planned_pct"] for row in rows),
        "mean_batch": float(np.mean([row["mean_batch"] for row in rows])),
    }


def decisions_us(queued: int = 64, rounds: int = 1000) -> FloatArray:
    """Microseconds of decisions with so many requests queued, 16 to 64 planned, and training."""
    times = {size: 0.01 + 0.001 * size for size in (1, 4, 16, 32, 64)}
    rng = np.random.default_rng(0)
    found = []
    for _ in range(rounds):
        planned = int(rng.choice([16, 32, 64, 128]))  # 128: no batch has filled
        known = times | {planned: 0.01 + 0.001 * planned}
        service = ServiceSpec("infer", 1.0, planned, known, 100.0)
        policy = Interleaver([service], [TrainingJob("train", 0.05)])
        policy.want("train")
        for number, at_s in enumerate(np.sort(rng.uniform(0, 0.9, queued)).tolist()):
            policy.arrive("infer", number, at_s)
        started = time.perf_counter()
        policy.decide(0.9)
        found.append(time.perf_counter() - started)
    return 1e6 * np.array(found)


_COLUMNS = {
    "variation": "CV",
    "load": "load",
    "batch": "batch",
    "requests": "requests",
    "missed": "missed",
    "missed_pct": "missed %",
    "avoidable": "avoidable",
    "p50_of_budget": "p50/budget",
    "p99_of_budget": "p99/budget",
    "mean_batch": "mean batch",
    "train_of_left_pct": "of left %",
    "train_of_left_min_pct": "least %",
    "train_of_planned_pct": "of planned %",
    "train_of_planned_min_pct": "least %",
}


def grouped(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A summary for each variation, load and batch, and over the batches."""
    summaries = []
    for variation in sorted({row["variation"] for row in rows}):
        for load in sorted({row["load"] for row in rows}):
            same = [row for row in rows if row["variation"] == variation and row["load"] == load]
            key = {"variation": variation, "load": load}
            for batch in sorted({row["batch"] for row in same}):
                of_batch = [row for row in same if row["batch"] == batch]
                summaries.append({**key, "batch": batch, **summarise(of_batch)})
            summaries.append({**key, "batch": "all", **summarise(same)})
    return summaries


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(f"{text!r} is no list of numbers such as 30,60,80") from None


def _batches(text: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if text == "all":
        return tuple(sizes)
    chosen = tuple(int(number) for number in _numbers(text))
    if missing := sorted(set(chosen) - set(sizes)):
        raise InvalidInput(f"no measured time of batch {missing}; there are: {list(sizes)}")
    return chosen


@click.command(help=__doc__)
@click.option("--train", required=True, help="Table of training.")
@click.option("--infer", required=True, help="Table of inference.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of both tables.")
@click.option("--loads", default="30,60,80", show_default=True, help="Per cent of b / t_infer(b).")
@click.option("--batch", default="all", show_default=True, help="Planned batch sizes, or all.")
@click.option("--cv", default="0,0.05", show_default=True, help="Variation of the times.")
@click.option("--margin", default=1.2, show_default=True, help="Of the latency budget.")
@click.option(
    "--largest",
    type=click.Choice(["table", "planned"]),
    default="table",
    show_default=True,
    help="Largest batch that may run: of the table, or the planned one.",
)
@click.option("--modes", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--seconds", default=120.0, show_default=True, help="Virtual, of each trace.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write all rows as JSON.")
def main(
    train: str,
    infer: str,
    board: str,
    loads: str,
    batch: str,
    cv: str,
    margin: float,
    largest: str,
    modes: int,
    seconds: float,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    paths = {"train": train, "infer": infer}
    replay = load_replay("concurrent", paths, load_board(board), "all")
    batches = _batches(batch, replay.batch_sizes("infer"))
    shares = [load / 100 for load in _numbers(loads)]
    todo = list(scenarios(replay, modes, batches, shares, margin))
    rows = []
    for done, scenario in enumerate(todo, start=1):
        for variation in _numbers(cv):
            rows.append(execute(scenario, variation, seconds, seed, largest))
        if sys.stderr.isatty() or done == len(todo):
            click.echo(f"\r  {done} of {len(todo)} scenarios", err=True, nl=done == len(todo))
    summaries = grouped(rows)
    console.print_table(
        list(_COLUMNS.values()), [[s[name] for name in _COLUMNS] for s in summaries]
    )
    speed = sum(row["events"] for row in rows) / sum(row["wall_s"] for row in rows)
    cost_us = dict(zip(("p50", "p99"), np.percentile(decisions_us(), (50, 99)), strict=True))
    click.echo(
        "avoidable: missed where all could have been met; p50: median over scenarios, p99: worst; "
        "training against the capacity left after inference as run, and as planned. "
        f"{speed:.3g} events/s; a decision with 64 queued: {cost_us['p50']:.3g} us "
        f"(p99 {cost_us['p99']:.3g})"
    )
    if json_path:
        found = {"rows": rows, "summaries": summaries, "events_hz": speed, "decision_us": cost_us}
        Path(json_path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
