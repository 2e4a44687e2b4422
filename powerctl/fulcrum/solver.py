"""What a solver is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from powerctl.fulcrum.search import Search, Solution


class Solver(Protocol):
    """Something that solves a problem by measuring in a few modes."""

    @property
    def name(self) -> str:
        """Of the catalogue."""

    def solve(self, search: Search) -> Solution:
        """Measure through the search until its cap, or until nothing left can win."""


@runtime_checkable
class CampaignSolver(Solver, Protocol):
    """A solver that can profile once for all bounds; what it profiled is then looked up."""

    def campaign(self, search: Search) -> None:
        """Profile to the cap for a problem without bounds; its record is what others know."""
