"""The default solver: what a model of time and power expects says where to measure next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from powerctl.cost_model import Signature
from powerctl.fulcrum.beliefs import Beliefs
from powerctl.fulcrum.problems import Assessment, Problem
from powerctl.fulcrum.search import Search, Solution
from powerctl.modes import FloatArray, IntArray
from powerctl.powertrain.reference import Reference

_ENOUGH = 1e-3  # expected gain that a measurement is worth
_SHORTLIST = 600  # modes of which draws are judged
DRAWS = 64


def gains(
    problem: Problem,
    beliefs: Beliefs,
    modes: IntArray,
    best_loss: float | None,
    *,
    n: int = DRAWS,
) -> FloatArray:
    """What measuring modes would gain if things are as drawn, each mode with its best choice.

    Parameters
    ----------
    problem : Problem
    beliefs : Beliefs
        Of the problem's jobs.
    modes : IntArray
        To judge.
    best_loss : float or None
        Of the best that is measured. Without one the gain is what a mode gives of the best there
        is in the draw, a share; nothing where it breaks a bound.
    n : int
        Draws.

    Returns
    -------
    FloatArray, shape (n, len(modes))
        From 0; 0.01 is 1 %.
    """
    found = problem.evaluate(*beliefs.draw(modes, n))
    loss = np.where(found.feasible, found.loss, np.inf).min(axis=-1)
    if best_loss is not None:
        return np.asarray(np.maximum(best_loss - loss, 0.0))
    best = loss.min(axis=1, keepdims=True)
    best[np.isinf(best)] = 0.0
    return np.asarray(np.exp(best - loss))


def nearness(problem: Problem, beliefs: Beliefs, modes: IntArray) -> FloatArray:
    """How surely modes keep all bounds with their best choice: deviations from the bounds.

    It tells modes apart where no draw keeps the bounds.
    """
    excess = problem.evaluate(*beliefs.draw(modes, DRAWS)).excess
    mean, std = excess.mean(axis=0), excess.std(axis=0)
    return np.asarray((-mean / (std + 1e-6)).max(axis=-1))


@dataclass(frozen=True)
class ModelBased:
    """Sequential search by a predictor's beliefs, from the first mode on.

    Before each measurement a predictor of each role is fitted to all that is known, and the mode
    of most expected gain comes next: before anything feasible is measured, of the best there may
    be; then over the best that is measured. Applying a mode is what costs, so every job is
    measured in it.

    Parameters
    ----------
    references : sequence of Reference, optional
        What predictors start from; None takes all that are known, an empty sequence none.
    expected : mapping of str to Signature
        By role, what its workload is estimated to need, from counts (`powerctl.pagoda.estimate`).

    References
    ----------
    Jones, Schonlau and Welch (1998), expected improvement; Gardner et al. (ICML 2014), the same
    under constraints.
    """

    references: Sequence[Reference] | None = None
    name: str = "default"
    expected: Mapping[str, Signature] = field(default_factory=dict)

    def solve(self, search: Search) -> Solution:
        """Measure to the cap, or until nothing is expected to gain.

        An answer that the other modes do not support is measured a second time before it is given.
        """
        if not search.problem.choices:
            return search.solution("no batch fills within the latency")
        repeated: set[int] = set()
        while True:
            reason = self._measure(search)
            best = search.best()
            if best is None or best[0] in repeated or not self._doubts(search, best[0]):
                return search.solution(reason)
            repeated.add(best[0])
            search.repeat(best[0])

    def _measure(self, search: Search) -> str:
        """Measure what promises most until it is enough; says why it is."""
        while search.left > 0:
            mode = self._next(search)
            if mode is None:
                return "no other mode is expected to gain"
            search.profile(mode)
        return f"the cap of {search.cap} modes"

    def _doubts(self, search: Search, mode: int) -> bool:
        """Whether what was measured here in a mode lies far off what all others say of it."""
        if mode not in search.profiled:
            return False
        return bool(self._beliefs(search).doubted[mode].any())

    def _beliefs(self, search: Search) -> Beliefs:
        return Beliefs.of(search, self.references, self.expected)

    def _next(self, search: Search) -> int | None:
        """The mode to measure next; None if that is not worth it."""
        fresh = np.flatnonzero(~search.measured.all(axis=1)).astype(np.int64)
        if not len(fresh):
            return None
        problem, best_loss = search.problem, _best_loss(search)
        beliefs = self._beliefs(search)
        modes = shortlist(problem, beliefs, fresh)
        # Without anything feasible, a gain in less than one draw is one that no draw has shown.
        enough = 1 / DRAWS if best_loss is None else _ENOUGH
        gain = gains(problem, beliefs, modes, best_loss).mean(axis=0)
        if gain.max() > enough:
            return int(modes[gain.argmax()])
        if best_loss is None:
            return int(modes[nearness(problem, beliefs, modes).argmax()])
        return None


def shortlist(problem: Problem, beliefs: Beliefs, modes: IntArray) -> IntArray:
    """Of many modes those that promise most if times and powers turn out as expected or lower."""
    if len(modes) <= _SHORTLIST:
        return modes
    mean, std = beliefs.mean[:, modes], beliefs.std[:, modes]
    order = []
    for deviations in (0.0, 1.0, 2.0):
        found = problem.evaluate(*np.exp(mean - deviations * std))
        order.append(np.argsort(_rank(found), kind="stable"))
    ranked = np.stack(order, axis=1).ravel()
    _, first = np.unique(ranked, return_index=True)
    return modes[ranked[np.sort(first)[:_SHORTLIST]]]


def _rank(found: Assessment) -> FloatArray:
    """Loss of the best choice that is feasible, else how far the nearest is from that."""
    loss = np.where(found.feasible, found.loss, 1e6 + found.excess)
    return np.asarray(loss.min(axis=-1))


def _best_loss(search: Search) -> float | None:
    best = search.best()
    return None if best is None else float(search.evaluate([best[0]]).loss[0, best[1]])
