"""A study's results, looked at by factor: the levels that differ in nothing else, and effects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from powerctl.characterization.plan import FACTORS, PREFETCH, Cell, Factor, described
from powerctl.characterization.results import FIRST, LATER, METRICS, Result
from powerctl.statistics import CONFIDENCE, Estimate, Ratio, estimate, holm, ratio

_TESTED = {  # what is compared of a factor, and when
    "workers": (("epoch", "stall", "energy"), (FIRST, LATER)),
    "prefetch": (("epoch", "stall", "energy"), (FIRST, LATER)),
    "storage": (("epoch", "stall", "energy"), (FIRST, LATER)),
    "batch": (("compute-rate", "rate", "sample-energy"), (LATER,)),
    "infer-batch": (("compute-rate", "sample-energy"), (LATER,)),
    "mode": (("epoch", "energy"), (LATER,)),
    "observer": (("epoch",), (LATER,)),
}
CACHE = "cache"


@dataclass(frozen=True)
class Slice:
    """Cells that differ in one factor alone, ascending; `context`: how they leave the baseline."""

    factor: Factor
    cells: tuple[Cell, ...]
    context: str


@dataclass(frozen=True)
class Effect:
    """How a metric changes from one level to another.

    `holds` says that it is no accident: of all the study's effects together, at 95 % (Holm).
    `factor` is a factor's name, or ``cache`` for first against later epochs of one cell.
    """

    factor: str
    context: str
    metric: str
    when: str
    before: Cell
    after: Cell
    ratio: Ratio
    before_mean: float
    after_mean: float
    holds: bool = False


@dataclass(frozen=True)
class Study:
    """Results of one machine and task.

    Attributes
    ----------
    results : sequence of Result
        All runs.
    baseline : Cell
        Where the factors stay that do not vary.
    modes : mapping of str to str
        Named modes; ``default`` is the board's.
    """

    results: Sequence[Result]
    baseline: Cell
    modes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[Cell, list[Result]]:
        """The runs of each cell, by repetition."""
        runs: dict[Cell, list[Result]] = {}
        for result in sorted(self.results, key=lambda r: r.repetition):
            runs.setdefault(result.configuration, []).append(result)
        return runs

    @cached_property
    def cells(self) -> list[Cell]:
        """All of them: the baseline, then factor by factor."""
        ordered = [cell for each in self.slices for cell in each.cells]
        first = [cell for cell in self.runs if cell == self.baseline]
        return list(dict.fromkeys([*first, *ordered, *self.runs]))

    def values(self, cell: Cell, metric: str, when: str) -> list[float]:
        """A metric of a cell, by repetition; NaN for what was not measured."""
        return [result.value(METRICS[metric], when) for result in self.runs[cell]]

    def estimate(self, cell: Cell, metric: str, when: str) -> Estimate:
        """Mean and interval of a metric of a cell over its repetitions."""
        return estimate(self.values(cell, metric, when))

    def measures(self, metric: str) -> bool:
        """Whether any run has a metric."""
        return any(
            not math.isnan(r.value(METRICS[metric], when))
            for r in self.results
            for when in (FIRST, LATER)
        )

    @cached_property
    def slices(self) -> list[Slice]:
        """Of each factor the sets of cells that vary it alone; those of the baseline first."""
        return [each for name in FACTORS for each in self._slices_of(FACTORS[name])]

    @cached_property
    def effects(self) -> list[Effect]:
        """Every comparison of the study, with whether it holds among all of them."""
        found = [
            effect
            for each in self.slices
            for before, after in self._pairs(each)
            for effect in self._compared(each, before, after)
        ]
        found += [effect for cell in self.runs for effect in self._cold(cell)]
        adjusted = holm([effect.ratio.p for effect in found])
        return [
            replace(effect, holds=p < 1 - CONFIDENCE)
            for effect, p in zip(found, adjusted, strict=True)
        ]

    def effect(self, before: Cell, after: Cell, metric: str, when: str) -> Effect | None:
        """A comparison, if it was made."""
        for effect in self.effects:
            found = (effect.before, effect.after, effect.metric, effect.when)
            if effect.factor != CACHE and found == (before, after, metric, when):
                return effect
        return None

    def named(self, cell: Cell) -> set[str]:
        """The names of a cell's mode: ``MAXN``, ``default``, ``MODE_30W`` ..."""
        mode = self.modes.get(cell.mode, cell.mode)
        return {name for name, value in self.modes.items() if value == mode}

    def _slices_of(self, factor: Factor) -> list[Slice]:
        groups: dict[Cell, list[Cell]] = {}
        usual = self.baseline.prefetch or PREFETCH
        for cell in self.runs:
            if cell.kind != factor.kind and factor.name in ("batch", "infer-batch"):
                continue
            if factor.name == "workers" and cell.prefetch not in (0, usual):
                continue
            if factor.name == "prefetch" and cell.workers == 0:
                continue
            changes = {factor.field: getattr(self.baseline, factor.field)}
            if factor.name == "workers":
                changes["prefetch"] = self.baseline.prefetch
            others = replace(cell, **changes)
            groups.setdefault(others, []).append(cell)
        found = []
        for others, cells in groups.items():
            if len({factor.level(cell) for cell in cells}) > 1:
                ordered = tuple(sorted(cells, key=lambda cell: self._rank(factor, cell)))
                found.append(Slice(factor, ordered, described(others, self.baseline)))
        return sorted(found, key=lambda each: each.context)

    def _rank(self, factor: Factor, cell: Cell) -> tuple[object, ...]:
        """Numbers ascend, modes from fast to slow, storages from the baseline's on."""
        if factor.name == "mode":
            return (self.estimate(cell, "epoch", LATER).mean,)
        level = factor.level(cell)
        return (level != factor.level(self.baseline) and isinstance(level, str), level)

    def _pairs(self, each: Slice) -> list[tuple[Cell, Cell]]:
        """Which levels are compared with which."""
        cells, name = each.cells, each.factor.name
        if name in ("batch", "infer-batch"):
            return list(pairwise(cells))
        if name == "mode":
            anchors = [cell for cell in cells if self.named(cell) & {"MAXN", "default"}]
            return [(a, b) for a in anchors or cells[:1] for b in cells if a != b]
        pairs = [(cells[0], cell) for cell in cells[1:]]
        if name == "workers":
            pairs += [(cell, cells[-1]) for cell in cells[1:-1]]
        return pairs

    def _compared(self, each: Slice, before: Cell, after: Cell) -> list[Effect]:
        metrics, whens = _TESTED[each.factor.name]
        return [
            self._effect(each.factor.name, each.context, metric, when, before, after)
            for metric in metrics
            for when in whens
            if self._known(before, metric, when) and self._known(after, metric, when)
        ]

    def _cold(self, cell: Cell) -> list[Effect]:
        """The first epoch against the later ones: only where storage or nothing is varied."""
        context = described(cell, self.baseline)
        if context and described(replace(cell, storage=self.baseline.storage), self.baseline):
            return []
        return [self._effect(CACHE, context, metric, FIRST, cell, cell) for metric in ("stall",)]

    def _effect(
        self,
        factor: str,
        context: str,
        metric: str,
        when: str,
        before: Cell,
        after: Cell,
    ) -> Effect:
        a = self.values(before, metric, LATER if factor == CACHE else when)
        b = self.values(after, metric, when)
        means = (estimate(a).mean, estimate(b).mean)
        return Effect(factor, context, metric, when, before, after, ratio(a, b), *means)

    def _known(self, cell: Cell, metric: str, when: str) -> bool:
        return not math.isnan(self.estimate(cell, metric, when).mean)
