"""Looks after a run: goes back to an earlier model where it diverges, and says when to end it.

A run diverges if three rounds in a row make no model (all updates are refused, or their aggregate
is not finite); if five evaluations in a row give a loss that is not finite, or is above 1.5 times
that of the initial model, which knows nothing; or, once something was learned, above it; or if
forty do without anything learned. Where the first loss is not above 0, only the others count. (In
134 healthy runs of unlike clients the loss was above 1.5 times for three evaluations in a row at
most, above once for two after something was learned, and before that for up to 37.) The run then
goes on from the best model that it held, and clients learn a quarter as fast; if it diverges for
the fourth time, it ends. It stands still if it has learned something, but what it holds has not
become better for twenty evaluations, nor for a third of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from logging import WARNING

from flwr.app import ArrayRecord
from flwr.common.logger import log

from wattfed.server.run.history import RoundRow, held_values
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.state import Memory

_FRUITLESS = 3  # rounds
_BAD, _BLIND = 5, 40  # evaluations
_FAR_ABOVE = 1.5  # times the initial model's loss
_LEARNED = 0.8  # of it
_MOST_BACK = 3
_PATIENCE = 20  # evaluations
_SHARE = 1 / 3  # of all evaluations, where that is more


class Supervisor(Memory):
    """What a run has come to, and what is to be done about it.

    Attributes
    ----------
    best : ArrayRecord or None
        The model after the round in which the run held most, at first the initial one.
    best_round : int
        That round.
    since : int
        The round from which it went on last: what was before says nothing of it.
    went_back : int
        How often it went back.
    """

    remembers = ("best", "best_round", "since", "went_back")

    def __init__(self) -> None:
        self.best: ArrayRecord | None = None
        self.best_round = self.since = self.went_back = 0

    def look(
        self, rows: Sequence[RoundRow], arrays: ArrayRecord, strategy: SelectingStrategy
    ) -> str:
        """Look at a run after a round; returns why it should end, empty if it should go on.

        Parameters
        ----------
        rows : sequence of RoundRow
            All of its rounds.
        arrays : ArrayRecord
            The model after the last.
        strategy : SelectingStrategy
            Which goes on from another model where that is called for.
        """
        held = held_values(rows)
        self._remember_best(rows, held, arrays)
        if why := self._divergence(rows, strategy):
            return self._go_back(rows[-1].round, why, strategy)
        return _plateau(rows, held)

    def _remember_best(
        self, rows: Sequence[RoundRow], held: Sequence[float | None], arrays: ArrayRecord
    ) -> None:
        """Keep the model, if the run has never held as much, and it knows more than at first."""
        target, now = rows[-1].target, held[-1]
        before = target.best(held[:-1])
        is_better = now is not None and (before is None or target.is_better(now, before))
        losses = _losses(rows)
        if self.best is None or (is_better and not (losses and losses[-1] >= losses[0])):
            self.best, self.best_round = arrays, rows[-1].round

    def _divergence(self, rows: Sequence[RoundRow], strategy: SelectingStrategy) -> str:
        """Why the last rounds are no progress; empty if they are, or it is too early to tell."""
        if strategy.fruitless >= _FRUITLESS:
            return f"{strategy.fruitless} rounds in a row made no model"
        recent = _losses(rows, self.since)
        if len(recent) < _BAD:
            return ""
        first, last = _losses(rows)[0], recent[-_BAD:]
        if not any(map(math.isfinite, last)):
            return "the loss is not finite"
        if not 0 < first < math.inf:  # then no share of it says anything
            return ""
        n = _BAD if min(recent) < _LEARNED * first else _BLIND
        is_lost = len(recent) >= n and all(loss > first for loss in recent[-n:])
        if is_lost or all(not loss <= _FAR_ABOVE * first for loss in last):
            return f"the loss is {last[-1]:.3g}, and was {first:.3g} of the initial model"
        return ""

    def _go_back(self, server_round: int, why: str, strategy: SelectingStrategy) -> str:
        if self.went_back == _MOST_BACK:
            return f"it diverged again: {why}"
        assert self.best is not None
        self.went_back += 1
        self.since = server_round
        strategy.go_back(self.best)
        log(
            WARNING,
            "round %s: the run diverges (%s): it goes on from the model of round %s, with %g of "
            "the learning rate",
            *(server_round, why, self.best_round, strategy.rate),
        )
        return ""


def _losses(rows: Sequence[RoundRow], since: int = -1) -> list[float]:
    """The losses that the server found after some round."""
    return [row.metrics["loss"] for row in rows if row.round > since and "loss" in row.metrics]


def _plateau(rows: Sequence[RoundRow], held: Sequence[float | None]) -> str:
    """Why a run that stands still should end; empty if it does not."""
    target = rows[-1].target
    known = [value for value in held if value is not None]
    best, losses = target.best(known), _losses(rows)
    if best is None or not math.isfinite(best) or not target.is_better(best, known[0]):
        return ""
    if losses and not min(losses) < _LEARNED * losses[0]:
        return ""
    since = len(known) - 1 - known.index(best)
    if since < max(_PATIENCE, _SHARE * len(known)):
        return ""
    return f"it stands still: {target.name} {target.printed(best)} was held {since} rounds ago"
