"""A policy that asks for summaries of updates, and keeps what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from numpy.random import Generator

from wattfed.strategies.offers import Offers
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.summaries import UpdateSummary


class Watching:
    """The first clients that can take part; `last` is the one that was made last."""

    observes_updates: Literal[True] = True
    last: ClassVar[Watching]

    def __init__(self) -> None:
        self.rounds: list[dict[int, UpdateSummary]] = []
        Watching.last = self

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """In the order of their numbers."""
        return assign(offers, offers.candidates("slack")[:k], "slack", float("inf"))

    def observe(
        self, reports: Sequence[RoundReport], summaries: Mapping[int, UpdateSummary]
    ) -> None:
        """Keep them."""
        self.rounds.append(dict(summaries))

    @property
    def told(self) -> list[dict[int, tuple[float, list[float]]]]:
        """What it was told in each round, as numbers."""
        return [
            {client: (one.norm, one.sketch.tolist()) for client, one in told.items()}
            for told in self.rounds
        ]


WATCHING = f"{__name__}:Watching"
