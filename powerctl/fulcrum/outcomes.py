"""What measured modes are worth to a problem: the best choice of each, and what it breaks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.fulcrum.problems import Problem
from powerctl.fulcrum.search import Search
from powerctl.modes import FloatArray, IntArray
from powerctl.quantities import rounded, spoken

_UNITS = {"w": "W", "j": "J", "s": "s", "hz": "/s"}


class Outcome(NamedTuple):
    """A measured mode with its best choice; without a feasible one, that of the least excess.

    Attributes
    ----------
    mode, choice : int
        Indices among the candidates and among the problem's choices.
    feasible : bool
        Whether every bound holds.
    value : float
        The problem's objective in its unit; where infeasible it is as defined, a share.
    excess : float
        By how much the worst bound is broken: 0.12 is 12 %; not above 0 where feasible.
    figures : mapping of str to float
        What the choice means, by names with units.
    broken : tuple of str
        The bounds that are broken, in words.
    """

    mode: int
    choice: int
    feasible: bool
    value: float
    excess: float
    figures: Mapping[str, float]
    broken: tuple[str, ...]


def outcomes(search: Search, modes: ArrayLike) -> list[Outcome]:
    """The outcome of each of some modes in which a choice is measured; in their order."""
    at: IntArray = np.asarray(modes, dtype=np.int64)
    found = best_choices(search.problem, search.time_s[at], search.power_w[at])
    return [
        _outcome(search, int(mode), int(choice))
        for mode, choice in zip(at, found, strict=True)
        if choice >= 0
    ]


def nearest_miss(search: Search) -> Outcome | None:
    """Of all that is measured, the choice of least excess; None if no choice is measured."""
    return min(outcomes(search, search.measured_modes), key=lambda o: o.excess, default=None)


def best_choices(problem: Problem, time_s: FloatArray, power_w: FloatArray) -> IntArray:
    """The best choice in each mode: feasible of least loss, else of least excess; -1 without.

    Parameters
    ----------
    problem : Problem
    time_s, power_w : FloatArray, shape (n_modes, n_jobs)
        NaN where not measured.

    Returns
    -------
    IntArray, shape (n_modes,)
    """
    found = problem.evaluate(time_s, power_w)
    if not found.loss.shape[-1]:
        return np.full(len(time_s), -1)
    excess = np.where(np.isnan(found.loss), np.inf, found.excess)
    loss = np.where(found.feasible, found.loss, np.inf)
    best = np.where(found.feasible.any(axis=1), loss.argmin(axis=1), excess.argmin(axis=1))
    return np.where(np.isfinite(excess).any(axis=1), best, -1)


def _outcome(search: Search, mode: int, choice: int) -> Outcome:
    problem = search.problem
    found = search.evaluate([mode])
    feasible, loss = bool(found.feasible[0, choice]), float(found.loss[0, choice])
    figures = problem.figures(search.time_s[mode], search.power_w[mode], choice)
    return Outcome(
        mode=mode,
        choice=choice,
        feasible=feasible,
        value=problem.value(loss),
        excess=math.expm1(float(found.excess[0, choice])),
        figures=figures,
        broken=() if feasible else _broken(problem, figures),
    )


def _broken(problem: Problem, figures: Mapping[str, float]) -> tuple[str, ...]:
    over = [
        f"{figure_name(name)} {figure_text(name, figures[name])} "
        f"(at most {figure_text(name, limit)})"
        for name, limit in problem.limits.items()
        if figures[name] > limit
    ]
    if figures.get("minibatches", 1.0) < 1:
        over.append("no whole minibatch fits beside a batch")
    elif figures.get("busy_share", 0.0) > 1:
        over.append("it does not keep up with the arrivals")
    return tuple(over)


def figure_name(figure: str) -> str:
    """A figure's name in words, without its unit: ``background latency``."""
    words = figure.split("_")
    return " ".join(words[:-1] if words[-1] in _UNITS else words)


def figure_text(figure: str, value: float) -> str:
    """A figure's value in words, with its unit: ``429.3 ms``."""
    unit = _UNITS.get(figure.rsplit("_", 1)[-1])
    return spoken(value, unit, 4) if unit else rounded(value, 4)
