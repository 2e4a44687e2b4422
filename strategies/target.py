"""The metric that a run is judged by: which it is, what is better, and what it shall reach."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import FloatArray, IntArray

_FALLING = frozenset({"loss", "error", "perplexity", "mae", "mse", "rmse"})
"""Words in the names of metrics that fall while a model learns; all others rise."""


@dataclass(frozen=True)
class Target:
    """A metric by its name, and whether the largest value (``"max"``) or the smallest is best.

    A value is None where nothing was evaluated, and NaN, which is worse than any number, where
    the evaluation gave no number.
    """

    name: str = "accuracy"
    direction: str = "max"

    def __post_init__(self) -> None:
        if self.direction not in ("max", "min"):
            raise InvalidInput(
                f'target {self.name}: the direction is "max" or "min", got {self.direction!r}'
            )

    @classmethod
    def named(cls, name: str) -> Target:
        """A metric with the direction that its name tells, such as "min" of ``val_loss``."""
        words = re.split(r"[\W_]+", name.lower())
        return cls(name, "max" if _FALLING.isdisjoint(words) else "min")

    @property
    def rises(self) -> bool:
        """Whether a larger value is better."""
        return self.direction == "max"

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value is better than another; every number is better than NaN."""
        if math.isnan(than):
            return not math.isnan(value)
        return value > than if self.rises else value < than

    def reached(self, value: float | None, level: float) -> bool:
        """Whether a value is as good as a level, or better."""
        if value is None:
            return False
        return value >= level if self.rises else value <= level

    def best(self, values: Iterable[float | None]) -> float | None:
        """The best of some values; None if there is none."""
        known = [value for value in values if value is not None]
        numbers = [value for value in known if not math.isnan(value)]
        if not numbers:
            return math.nan if known else None
        return max(numbers) if self.rises else min(numbers)

    def easiest_first(self, levels: Iterable[float]) -> list[float]:
        """Levels in the order in which a run that gets better reaches them."""
        return sorted(levels, reverse=not self.rises)

    def worst_first(self, values: FloatArray) -> IntArray:
        """The indices that sort values from the worst, NaN, to the best; stable for equal ones."""
        rising = values if self.rises else -values
        return np.argsort(np.where(np.isnan(values), -np.inf, rising), kind="stable")

    def printed(self, value: float | None) -> str:
        """A value in words: three decimals of a share such as accuracy, else four digits."""
        if value is None:
            return "-"
        is_share = self.rises and 0 <= value <= 1
        return f"{value:.3f}" if is_share else f"{value:#.4g}".rstrip(".")

    def in_table(self, value: float | None) -> float | str:
        """A value for a table, whose dash for NaN is to mean that nothing was evaluated."""
        if value is None:
            return math.nan
        return "nan" if math.isnan(value) else value


@dataclass(frozen=True)
class RunGoal:
    """A metric that a run is to be judged by, and the levels of it that count, if any.

    Attributes
    ----------
    metric : str
        Its name.
    levels : tuple of float
        A run stops once all are reached.
    """

    metric: str
    levels: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> RunGoal:
        """A goal from ``METRIC``, ``METRIC=VALUE`` or ``METRIC=VALUE,VALUE,...``.

        Raises
        ------
        InvalidInput
            If there is no name, or a value is no finite number.
        """
        levels: tuple[float, ...] = ()
        name, equals, values = text.rpartition("=")
        if not equals:
            name = text
        else:
            try:
                levels = tuple(dict.fromkeys(map(float, values.split(","))))
            except ValueError:
                levels = (math.nan,)
        if not name or not all(map(math.isfinite, levels)):
            raise InvalidInput(
                f"target: cannot read {text!r}; write METRIC=VALUE, such as mAP=0.5, or METRIC"
            )
        return cls(name, levels)

    def __str__(self) -> str:
        return f"{self.metric}={','.join(map(repr, self.levels))}" if self.levels else self.metric


def judged_by(goal: RunGoal | None, declared: Target, metrics: Collection[str]) -> Target:
    """What a run is judged by: the metric of its goal, else what its task declares.

    Parameters
    ----------
    goal : RunGoal or None
        Of the run's configuration.
    declared : Target
        The task's; its direction also holds for a goal of the same name.
    metrics : collection of str
        The names that the evaluation gives.

    Raises
    ------
    UnknownName
        If the evaluation does not give that metric; the message lists what it gives.
    """
    target = declared
    if goal is not None and goal.metric != declared.name:
        target = Target.named(goal.metric)
    if target.name not in metrics:
        hint = " (what the evaluation gives; choose by target = METRIC=VALUE)"
        raise UnknownName("target metric", target.name, metrics, hint)
    return target
