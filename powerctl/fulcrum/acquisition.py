"""What measuring a mode is expected to gain, given beliefs."""

from __future__ import annotations

import numpy as np

from powerctl.fulcrum.beliefs import Beliefs
from powerctl.fulcrum.problems import Problem
from powerctl.modes import FloatArray, IntArray

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
