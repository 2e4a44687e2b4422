"""How much the updates of earlier rounds count when they arrive late."""

from __future__ import annotations

import numpy as np

from powerctl.errors import UnknownName
from powerctl.modes import FloatArray, IntArray

STALENESS_RULES = ("refl", "fedbuff", "equal", "adasgd", "dynsgd")


def staleness_weights(
    staleness: IntArray,
    deviation: FloatArray,
    rule: str = "refl",
    beta: float = 0.35,
    damping: float = 1.0,
) -> FloatArray:
    """Weights of fresh and late updates in an aggregation; they sum to 1.

    Before normalising, a fresh update weighs 1 and one that is tau rounds late

    - ``"refl"``: (1 - beta) / (tau + 1) + beta (1 - exp(-L / L_max)) / damping: what would move
      the fresh average far may hold what fresh ones lack,
    - ``"fedbuff"``: 1 / sqrt(tau + 1),
    - ``"equal"``: 1,
    - ``"adasgd"``: 1 / (tau + 1),
    - ``"dynsgd"``: exp(-(tau + 1)).

    Parameters
    ----------
    staleness : IntArray, shape (n,)
        Rounds late; 0 for a fresh update.
    deviation : FloatArray, shape (n,)
        L: squared norm of the deviation that a late update would cause from the fresh average.
    rule : str
        One of `STALENESS_RULES`.
    beta, damping : float
        Of REFL's rule; its paper has a damping of 1, its code of 10.

    Raises
    ------
    UnknownName
        If there is no such rule.

    References
    ----------
    Abdelmoniem et al., REFL, EuroSys 2023, section 4.2; FedBuff: Nguyen et al., AISTATS 2022,
    section 5 (which divides by the number of updates instead).
    """
    if rule not in STALENESS_RULES:
        raise UnknownName("staleness rule", rule, STALENESS_RULES)
    late = staleness > 0
    late_by = staleness[late] + 1.0
    weights = np.ones(len(staleness))
    if rule == "adasgd":
        weights[late] = 1 / late_by
    elif rule == "fedbuff":
        weights[late] = 1 / np.sqrt(late_by)
    elif rule == "dynsgd":
        weights[late] = np.exp(-late_by)
    elif rule == "refl":
        relative = deviation[late] / max(float(deviation[late].max(initial=0.0)), 1e-30)
        weights[late] = (1 - beta) / late_by + beta * (1 - np.exp(-relative)) / damping
    return weights / max(float(weights.sum()), 1e-30)
