"""The plan of a study: which configurations run, how often, and in which order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from powerctl.characterization.factors import FACTORS, Configuration, Factor, Level
from powerctl.errors import InvalidInput


@dataclass(frozen=True)
class Run:
    """One configuration, run once: its first epoch from a cold cache, then its later ones."""

    configuration: Configuration
    repetition: int


@dataclass(frozen=True)
class Plan:
    """What a study runs.

    Attributes
    ----------
    baseline : Configuration
        Where all factors but the one that varies stay.
    levels : mapping of str to sequence of Level
        The levels of each factor that varies, in the order of reports.
    grid : bool
        Whether each level runs with each of the other factors too, not with the baseline alone.
    repetitions : int
        Runs of each configuration: what intervals are from. Each repetition runs all of them once,
        in a random order of its own, so that no slow drift looks like a factor.
    epochs : int
        Of a run: the first, and at least one later.
    seed : int
        Of the order.
    """

    baseline: Configuration
    levels: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    grid: bool = False
    repetitions: int = 3
    epochs: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repetitions < 1 or self.epochs < 2:
            raise InvalidInput(
                f"a study needs at least 1 repetition and 2 epochs (the first and a later one), "
                f"not {self.repetitions} and {self.epochs}"
            )
        unknown = set(self.levels) - set(FACTORS)
        if unknown:
            raise InvalidInput(f"no factor {', '.join(sorted(unknown))}: {', '.join(FACTORS)}")

    def cells(self) -> list[Configuration]:
        """Every configuration once: the baseline, each factor varied alone, and the grid."""
        cells = [self.baseline]
        for name, levels in self.levels.items():
            cells += [FACTORS[name].set(self.baseline, level) for level in levels]
        if self.grid:
            varied = [each for name, each in FACTORS.items() if name in self.levels]
            cells += self._crossed([each for each in varied if each.kind == "train"])
            if "infer-batch" in self.levels:
                cells += self._crossed([each for each in varied if each.name != "batch"])
        return list(dict.fromkeys(cells))

    def runs(self) -> list[Run]:
        """All runs, in the order to run them in."""
        order = []
        for repetition in range(self.repetitions):
            cells = self.cells()
            random.Random(f"{self.seed}/{repetition}").shuffle(cells)
            order += [Run(cell, repetition) for cell in cells]
        return order

    def _crossed(self, factors: Sequence[Factor]) -> list[Configuration]:
        cells = []
        for levels in itertools.product(*(self.levels[each.name] for each in factors)):
            cell = self.baseline
            for each, level in zip(factors, levels, strict=True):
                cell = each.set(cell, level)
            cells.append(cell)
        return cells
