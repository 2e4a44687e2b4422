"""Solvers: ours by name and those of others, and how many modes each may profile."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from powerctl.cost_model import Signature
from powerctl.fulcrum.als import ALS
from powerctl.fulcrum.baselines import Maxn, NeuralNetwork, Optimal, RandomModes
from powerctl.fulcrum.gmd import GMD
from powerctl.fulcrum.problems import Problem
from powerctl.fulcrum.solver import Solver
from powerctl.plugins import OF_OTHERS, Kind
from powerctl.powertrain.reference import Reference

# Published numbers of modes that ALS profiles: for one workload, and for a pair.
_ALS_MODES = (50, 145)
_CAMPAIGN_MODES = (50, 50)

Make = Callable[[int, "Sequence[Reference] | None"], Solver]  # from a seed and references


@dataclass(frozen=True)
class SolverEntry:
    """A solver of the catalogue.

    Attributes
    ----------
    name : str
    make : callable
        From a seed and the references that the solver may know other workloads from (None: those
        that come with powerctl; only the default uses them).
    own_modes : tuple of int or None
        Modes that it profiles for one workload and for a pair, whatever cap is asked for.
    probes : int
        Modes that a campaign solver may profile for each problem after its campaign.
    """

    name: str
    make: Make
    own_modes: tuple[int, int] | None = None
    probes: int = 0

    def cap(self, problem: Problem, asked: int) -> int:
        """Cap of profiled modes for a problem."""
        if self.own_modes is None:
            return asked
        return self.own_modes[len({job.role for job in problem.jobs}) - 1]


def solver_names() -> list[str]:
    """Names of the solvers; ``N`` stands for a number of modes."""
    return sorted((*SOLVERS.names(), *(f"{name}-N" for name in _COUNTED)))


def find_solver(name: str) -> SolverEntry:
    """The entry of a name such as ``gmd`` or ``random-50``, or of a solver of others.

    Those are given `seed` and `references`, where they have such parameters.

    Raises
    ------
    UnknownName, InvalidInput
        If there is none, or another's cannot be loaded.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    if match := re.fullmatch(r"(random|nn|als)-([1-9]\d*)", name):
        n = int(match[2])
        return SolverEntry(name, _COUNTED[match[1]](n), (n, n))

    def make(seed: int, references: Sequence[Reference] | None) -> Solver:
        return SOLVERS.make(name, seed=seed, references=references)

    make(0, ())  # at once, as for a name
    return SolverEntry(name, make)


def _default(seed: int, references: Sequence[Reference] | None) -> Solver:
    from powerctl.fulcrum.model_based import ModelBased

    return ModelBased(references=references)


def _campaign(seed: int, references: Sequence[Reference] | None) -> Solver:
    from powerctl.fulcrum.campaign import ModelBasedCampaign

    return ModelBasedCampaign(references=references)


def knowing(solver: Solver, expected: Mapping[str, Signature]) -> Solver:
    """The solver with estimates of what each role needs, from counts; baselines take none."""
    from powerctl.fulcrum.model_based import ModelBased

    return replace(solver, expected=expected) if isinstance(solver, ModelBased) else solver


_ENTRIES = {
    entry.name: entry
    for entry in (
        SolverEntry("default", _default),
        SolverEntry("campaign", _campaign, _CAMPAIGN_MODES, probes=2),
        SolverEntry("campaign-0", _campaign, _CAMPAIGN_MODES),
        SolverEntry("gmd", lambda seed, references: GMD()),
        SolverEntry("als", lambda seed, references: ALS(seed), _ALS_MODES),
        SolverEntry("maxn", lambda seed, references: Maxn(), (1, 1)),
        SolverEntry("optimal", lambda seed, references: Optimal(), (sys.maxsize, sys.maxsize)),
    )
}
_COUNTED: dict[str, Callable[[int], Make]] = {
    "random": lambda n: lambda seed, references: RandomModes(n, seed),
    "nn": lambda n: lambda seed, references: NeuralNetwork(n, seed),
    "als": lambda n: lambda seed, references: ALS(seed, name=f"als-{n}"),
}
SOLVERS = Kind[Solver](
    "solver",
    "powerctl.solvers",
    _ENTRIES,
    Solver,
    hint=f"; or {'-N, '.join(_COUNTED)}-N for N modes{OF_OTHERS}",
)
