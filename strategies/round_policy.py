"""When a round closes, and what updates that come later count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import FloatArray, IntArray

STALENESS_RULES = ("refl", "fedbuff", "equal", "adasgd", "dynsgd")
DROP = "drop"
LATE_RULES = (DROP, *STALENESS_RULES)


@dataclass(frozen=True)
class RoundPolicy:
    """How many are asked, and with how many updates a round closes.

    Attributes
    ----------
    over_commit : float
        Clients asked for each one wanted; the round closes with the first to finish (Bonawitz et
        al., MLSys 2019).
    buffer : int
        0 for rounds. Else asynchronous aggregation: as many clients train at a time as are wanted
        in a round, and whenever so many updates have come, from whichever model they started, they
        are aggregated and their senders are replaced (FedBuff, Nguyen et al., AISTATS 2022, which
        replaces each at once).
    late : str
        What becomes of an update that comes when its round has closed: ``"drop"``, or the rule of
        `wattfed.strategies.round_policy` by which it counts in the round in which it comes.
    max_staleness : int
        Updates that are more rounds late are dropped all the same.
    """

    over_commit: float = 1.0
    buffer: int = 0
    late: str = DROP
    max_staleness: int = 5

    def __post_init__(self) -> None:
        if not self.over_commit >= 1:
            raise InvalidInput(f"over-commit must be at least 1, got {self.over_commit:g}")
        for name in ("buffer", "max_staleness"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name.replace('_', '-')} cannot be negative")
        if self.late not in LATE_RULES:
            raise UnknownName("rule for late updates", self.late, LATE_RULES)
        if self.buffer and (self.late == DROP or self.over_commit > 1):
            raise InvalidInput(
                "a buffer counts late updates and asks nobody beyond who is wanted: set late to "
                f"one of {', '.join(STALENESS_RULES)}, and over-commit to 1"
            )

    def to_ask(self, wanted: int, on_the_way: int) -> int:
        """How many to ask for a round in which so many are wanted and so many still train."""
        if self.buffer:
            return max(0, wanted - on_the_way)
        return math.ceil(self.over_commit * wanted)

    @property
    def waits_for_all(self) -> bool:
        """Whether no update can come when its round has closed."""
        return self.over_commit == 1 and not self.buffer

    def to_await(self, asked: int) -> int:
        """How many of those asked a round waits for; of no concern with a buffer."""
        return max(min(asked, 1), round(asked / self.over_commit))


def staleness_weights(
    staleness: IntArray,
    deviation: FloatArray,
    rule: str = "refl",
    beta: float = 0.35,
    damping: float = 10.0,
) -> FloatArray:
    """Weights of fresh and late updates in an aggregation; they sum to 1.

    Before normalising, a fresh update weighs 1 and one that is tau rounds late

    - ``"refl"``: (1 - beta) / (tau + 1) + beta (1 - exp(-L / L_max) / damping): what would move
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
        Of REFL's rule, as in its code; its paper has a damping of 1.

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
        weights[late] = (1 - beta) / late_by + beta * (1 - np.exp(-relative) / damping)
    return weights / max(float(weights.sum()), 1e-30)
