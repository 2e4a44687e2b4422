"""What a federated run asks of whatever runs its rounds: Flower's grid, or the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flwr.app import ArrayRecord, MetricRecord

from wattfed.server.run.participants import Participants
from wattfed.strategies.offers import Offers
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.state import State

AfterRound = Callable[[int, ArrayRecord], MetricRecord]
"""Takes a round's number and the model after it; returns what the server found of that model."""
OnPart = Callable[[str, int, int], object]
"""Told of a kind of messages within a round: how many of how many clients have answered."""


class RoundEngine(Protocol):
    """Runs rounds: on Flower's grid, or on the virtual clock."""

    label_noise: str  # where that on its clients' labels is drawn from, for the summary

    def run(
        self, strategy: SelectingStrategy, arrays: ArrayRecord, after_round: AfterRound
    ) -> object:
        """All rounds that are not in the strategy's ledger yet; calls the last after each."""
        ...

    def participants(self, strategy: SelectingStrategy, offers: Offers) -> Participants:
        """Who the clients of some offers are, and why some of them cannot take part."""
        ...

    def state(self) -> State:
        """What it keeps between rounds."""
        ...

    def restore(self, state: State) -> None:
        """Take the state of another; raises `InvalidInput` if it is not of this run."""
        ...
