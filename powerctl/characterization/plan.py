"""The plan of a study: the factors that it varies, and which configurations run in which order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from powerctl.errors import InvalidInput, UnknownName

Level = int | str | bool
PREFETCH = 2  # torch's own


@dataclass(frozen=True)
class Cell:
    """One way to run the workload: a level of every factor.

    Attributes
    ----------
    kind : str
        ``"train"`` or ``"infer"``.
    workers : int
        Processes of the DataLoader; 0 loads in the process that trains.
    prefetch : int
        Minibatches that each worker loads ahead; 0 without workers, which load none ahead.
    storage : str
        Where samples lie: of stored images ``files`` or ``packed``, ``@FOLDER`` behind it for one
        elsewhere; of the twin a kind of disc.
    batch_size : int
        Samples of a minibatch.
    mode : str
        A power mode or preset as the board's catalogue writes it; empty: as it is found.
    observer : bool
        Whether CPU, GPU and memory are sampled meanwhile.
    """

    kind: str = "train"
    workers: int = 4
    prefetch: int = PREFETCH
    storage: str = "files"
    batch_size: int = 16
    mode: str = ""
    observer: bool = True

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("prefetch", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} is {getattr(self, name)}, below {least}")
        if self.workers == 0:
            object.__setattr__(self, "prefetch", 0)  # one name for what is the same
        elif self.prefetch == 0:
            raise InvalidInput("workers load at least 1 minibatch ahead: --prefetch from 1")


@dataclass(frozen=True)
class Factor:
    """A thing that is varied: its name on the command line, for people, and in a configuration."""

    name: str
    title: str
    field: str
    kind: str = "train"

    def set(self, configuration: Cell, level: Level) -> Cell:
        """The configuration with another level of this factor; it is of this factor's kind."""
        if self.name == "prefetch" and configuration.workers == 0:
            return configuration
        if self.name == "workers" and configuration.prefetch == 0:
            configuration = replace(configuration, workers=1, prefetch=PREFETCH)
        changes: dict[str, Any] = {self.field: level}
        return replace(configuration, kind=self.kind, **changes)

    def level(self, configuration: Cell) -> Level:
        """The level of this factor in a configuration."""
        level: Level = getattr(configuration, self.field)
        return level

    def shown(self, level: Level) -> str:
        """A level of this factor in words for people."""
        if isinstance(level, bool):
            return "on" if level else "off"
        return str(level) or "as found"


FACTORS = {
    factor.name: factor
    for factor in (
        Factor("workers", "DataLoader workers", "workers"),
        Factor("prefetch", "prefetched minibatches a worker", "prefetch"),
        Factor("storage", "storage", "storage"),
        Factor("batch", "batch size", "batch_size"),
        Factor("mode", "power mode", "mode"),
        Factor("observer", "the observer", "observer"),
        Factor("infer-batch", "inference batch size", "batch_size", kind="infer"),  # last: see set
    )
}


def factor(name: str) -> Factor:
    """The factor of a name."""
    if name not in FACTORS:
        raise UnknownName("factor", name, FACTORS)
    return FACTORS[name]


def described(configuration: Cell, baseline: Cell) -> str:
    """How a configuration differs from the baseline, for people; empty if it does not."""
    parts = []
    if configuration.kind != baseline.kind:
        parts.append(configuration.kind)
    for each in FACTORS.values():
        level = each.level(configuration)
        if each.name != "infer-batch" and level != each.level(baseline):
            if each.name == "prefetch" and 0 in (configuration.workers, baseline.workers):
                continue  # that there are no workers says it
            parts.append(f"{each.name} {each.shown(level)}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Run:
    """One configuration, run once: its first epoch from a cold cache, then its later ones."""

    configuration: Cell
    repetition: int


@dataclass(frozen=True)
class Plan:
    """Which configurations a study runs, how often and in which order.

    Attributes
    ----------
    baseline : Cell
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

    baseline: Cell
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

    def cells(self) -> list[Cell]:
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

    def _crossed(self, factors: Sequence[Factor]) -> list[Cell]:
        cells = []
        for levels in itertools.product(*(self.levels[each.name] for each in factors)):
            cell = self.baseline
            for each, level in zip(factors, levels, strict=True):
                cell = each.set(cell, level)
            cells.append(cell)
        return cells
