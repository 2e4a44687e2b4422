"""The problems that solvers are judged on: all combinations of bounds, on measured tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.ranges import parse_range
from powerctl.boards import Board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Concurrent, InferAlone, Problem, TrainAlone
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import best_of
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeSpace
from powerctl.powertrain.support import screened

ROLES = {"train": ("train",), "infer": ("infer",), "concurrent": ("train", "infer")}

# Fulcrum's grids of bounds and of modes (Orin AGX).
PUBLISHED_BOUNDS = {
    "train": {"power": "10:50:1"},
    "infer": {"power": "10:50:1", "rate": "30:90:5", "latency": "0.05:0.15:0.01"},
    "concurrent": {"power": "10:50:1", "rate": "30:120:10", "latency": "0.5:2.0:0.1"},
}
PUBLISHED_MODES = {
    "cores": (4, 8, 12),
    "cpu_khz": (422400, 729600, 1036800, 1344000, 1651200, 1958400, 2201600),
    "gpu_hz": (114750000, 318750000, 522750000, 726750000, 930750000, 1134750000, 1300500000),
    "mem_hz": (665600000, 2133000000, 3199000000),
}


@dataclass(frozen=True)
class Question:
    """A solvable problem, and the least loss there is."""

    number: int  # among all configurations
    problem: Problem
    best_loss: float


@dataclass(frozen=True)
class Bounds:
    """Ranges of bounds of one kind of problem.

    Attributes
    ----------
    kind : str
        ``"train"``, ``"infer"`` or ``"concurrent"``.
    power_w, rate_hz, latency_s : tuple of float
        Values; training alone has no rate and no latency.
    objective : str
        Of concurrent problems.
    guard : bool
        Of concurrent problems; off to compare with published figures.
    """

    kind: str
    power_w: tuple[float, ...]
    rate_hz: tuple[float, ...]
    latency_s: tuple[float, ...]
    objective: str
    guard: bool

    @classmethod
    def parse(
        cls, kind: str, ranges: Mapping[str, str | None], objective: str, guard: bool
    ) -> Bounds:
        """Of texts; those that are not given are the published ones."""
        texts = PUBLISHED_BOUNDS[kind] | {name: text for name, text in ranges.items() if text}
        power, rate, latency = (
            parse_range(texts[name]) if name in texts else (math.inf,)
            for name in ("power", "rate", "latency")
        )
        return cls(kind, power, rate, latency, objective, guard)

    def problems(
        self, batch_sizes: tuple[int, ...], n: int | None = None, seed: int = 0
    ) -> list[Problem]:
        """Every combination, or so many drawn of them; power changes fastest."""
        every = list(product(self.rate_hz, self.latency_s, self.power_w))
        if n is not None and n < len(every):
            drawn = np.random.default_rng(seed).choice(len(every), n, replace=False)
            every = [every[i] for i in sorted(drawn.tolist())]
        return [self._problem(power, rate, latency, batch_sizes) for rate, latency, power in every]

    def without_limits(self, batch_sizes: tuple[int, ...]) -> Problem:
        """What a campaign profiles for: no bound holds it."""
        return self._problem(math.inf, self.rate_hz[0], math.inf, batch_sizes)

    def _problem(
        self, power_w: float, rate_hz: float, latency_s: float, batch_sizes: tuple[int, ...]
    ) -> Problem:
        if self.kind == "train":
            return TrainAlone(power_w)
        if self.kind == "infer":
            return InferAlone(power_w, rate_hz, latency_s, batch_sizes)
        return Concurrent(
            power_w, rate_hz, latency_s, batch_sizes, objective=self.objective, guard=self.guard
        )


def load_replay(
    kind: str,
    paths: Mapping[str, str | None],
    board: Board,
    grid: str,
    read: Callable[[str], MeasurementTable] = MeasurementTable.read,
) -> Replay:
    """The tables that a kind of problem needs, over a grid of modes."""
    tables = {}
    for role in ROLES[kind]:
        path = paths.get(role)
        if path is None:
            raise InvalidInput(f"--problem {kind} needs a table: --{role} T.csv")
        tables[role] = read(path)
    return Replay.of(tables, board.name, published_modes(board) if grid == "published" else None)


def read_screened(path: str) -> MeasurementTable:
    """A table in which rows that no neighbour supports are replaced by what the others say."""
    return screened(MeasurementTable.read(path)).table


def published_modes(board: Board) -> ModeSpace:
    """The grid of 441 modes; raises `ModeNotInSpace` for another board."""
    return board.space.subspace(**PUBLISHED_MODES)


def solvable(replay: Replay, problems: Sequence[Problem]) -> list[Question]:
    """Brute force: the problems that have a feasible choice, with the optimum."""
    found = []
    for number, problem in enumerate(problems):
        evaluation = problem.evaluate(*replay.columns(problem.jobs))
        best = best_of(evaluation)
        if best is not None:
            found.append(Question(number, problem, float(evaluation.loss[best])))
    return found
