"""Solvers: what one is, ours by name and those of others, and how many modes each may profile."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from powerctl.cost_model import Signature
from powerctl.fulcrum.als import ALS
from powerctl.fulcrum.baselines import Maxn, NeuralNetwork, Optimal, RandomModes
from powerctl.fulcrum.gmd import GMD
from powerctl.fulcrum.problems import Problem
from powerctl.fulcrum.search import Search, Solution
from powerctl.plugins import OF_OTHERS, Kind, load_object
from powerctl.powertrain.reference import Reference

_ALS_MODES = (50, 145)  # Fulcrum (arXiv 2509.20205): for one workload, and for a pair
_CAMPAIGN_MODES = (50, 50)


class Solver(Protocol):
    """Something that solves a problem by measuring in a few modes."""

    @property
    def name(self) -> str:
        """What the solver is called in the catalogue."""

    def solve(self, search: Search) -> Solution:
        """Measure through the search until its cap, or until nothing left can win."""


class MakeSolver(Protocol):
    """Makes a solver from its seed and from what it may know beforehand."""

    def __call__(
        self,
        seed: int,
        references: Sequence[Reference] | None,
        expected: Mapping[str, Signature] | None = None,
    ) -> Solver:
        """Make the solver from what it may know.

        Parameters
        ----------
        seed : int
            Of its random choices.
        references : sequence of Reference, optional
            What it may know other workloads from; None: all that come with powerctl.
        expected : mapping of str to Signature, optional
            Estimates of what each role needs, from counts. Only model-based solvers use these two.
        """


@dataclass(frozen=True)
class SolverEntry:
    """A solver of the catalogue.

    Attributes
    ----------
    name : str
    make : MakeSolver
    own_modes : tuple of int or None
        Modes that it profiles for one workload and for a pair, whatever cap is asked for.
    profiles_once : bool
        Whether it profiles once for all bounds, and then looks up what is known.
    probes : int
        Modes that such a solver may profile for each problem after that.
    """

    name: str
    make: MakeSolver
    own_modes: tuple[int, int] | None = None
    profiles_once: bool = False
    probes: int = 0

    def cap(self, problem: Problem, asked: int) -> int:
        """Cap of profiled modes for a problem."""
        if self.own_modes is None:
            return asked
        return self.own_modes[len({job.role for job in problem.jobs}) - 1]


def solver_names() -> list[str]:
    """Names of the solvers; ``N`` stands for a number of modes."""
    return sorted((*SOLVERS.names(), *(f"{name}-N" for name in _OF_N_MODES)))


def find_solver(name: str) -> SolverEntry:
    """The entry of a name such as ``gmd`` or ``random-50``, or of a solver of others.

    Those are given `seed`, `references` and `expected`, where they have such parameters.

    Raises
    ------
    UnknownName, InvalidInput
        If there is none, or another's cannot be loaded.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    if match := re.fullmatch(r"(random|nn|als)-([1-9]\d*)", name):
        n = int(match[2])
        of_n, once = _OF_N_MODES[match[1]], match[1] == "als"
        return SolverEntry(name, _seeded(lambda seed: of_n(n, seed)), (n, n), profiles_once=once)

    def make(
        seed: int,
        references: Sequence[Reference] | None,
        expected: Mapping[str, Signature] | None = None,
    ) -> Solver:
        return SOLVERS.make(name, seed=seed, references=references, expected=expected)

    make(0, ())  # at once, as for a name
    return SolverEntry(name, make)


def _model_based(where: str) -> MakeSolver:
    """Makes a solver that draws nothing, of a class that is loaded when it is used."""

    def make(
        seed: int,
        references: Sequence[Reference] | None,
        expected: Mapping[str, Signature] | None = None,
    ) -> Solver:
        solver: Solver = load_object(where)(references, expected=expected or {})
        return solver

    return make


def _seeded(make: Callable[[int], Solver]) -> MakeSolver:
    """Makes a solver that knows nothing beforehand."""
    return lambda seed, references, expected=None: make(seed)


_OF_N_MODES: dict[str, Callable[[int, int], Solver]] = {  # from N and a seed
    "random": RandomModes,
    "nn": NeuralNetwork,
    "als": lambda n, seed: ALS(seed, name=f"als-{n}"),
}
_campaign = _model_based("powerctl.fulcrum.campaign:ModelBasedCampaign")
_ENTRIES = {
    entry.name: entry
    for entry in (
        SolverEntry("default", _model_based("powerctl.fulcrum.model_based:ModelBased")),
        SolverEntry("campaign", _campaign, _CAMPAIGN_MODES, True, probes=2),
        SolverEntry("campaign-0", _campaign, _CAMPAIGN_MODES, True),
        SolverEntry("gmd", _seeded(lambda seed: GMD())),
        SolverEntry("als", _seeded(ALS), _ALS_MODES, True),
        SolverEntry("maxn", _seeded(lambda seed: Maxn()), (1, 1)),
        SolverEntry("optimal", _seeded(lambda seed: Optimal()), (sys.maxsize, sys.maxsize), True),
    )
}
SOLVERS = Kind[Solver](
    "solver",
    "powerctl.solvers",
    _ENTRIES,
    Solver,
    hint=f"; or {'-N, '.join(_OF_N_MODES)}-N for N modes{OF_OTHERS}",
)
