"""What every problem has: jobs that may be measured, choices, and how they are judged."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import BoolArray, FloatArray, IntArray


class Job(NamedTuple):
    """A minibatch whose time and power matter: whose it is, and its size.

    `role` is ``"train"``, ``"infer"`` or ``"background"`` (a second inference that can wait);
    training has a batch size of its own, None here.
    """

    role: str
    batch_size: int | None = None

    def __str__(self) -> str:
        return self.role if self.batch_size is None else f"{self.role} x{self.batch_size}"


class Assessment(NamedTuple):
    """What choices are worth; arrays of shape (..., n_choices).

    Attributes
    ----------
    feasible : BoolArray
        Whether every bound holds. False where something needed is not measured.
    loss : FloatArray
        To be made least: the logarithm of a time, or minus that of a rate, so that differences are
        relative. NaN where not measured. Of choices that break a bound it is as defined, finite;
        with room for less than one minibatch in the cycle, the share that there is room for counts.
    excess : FloatArray
        The largest logarithm of value over limit, over all bounds: not above 0 just where feasible.
        NaN where not measured.
    power_w : FloatArray
        The largest power of the choice's jobs. Equal losses go to the lower power.
    """

    feasible: BoolArray
    loss: FloatArray
    excess: FloatArray
    power_w: FloatArray


class Problem(ABC):
    """What is chosen beside the mode, under which bounds, and what is best.

    Attributes
    ----------
    maximised : bool
        Whether more of the objective is better.
    roles : tuple of str
        What runs: the roles of its jobs, in all its choices.
    power_limit_w : float
        Bound of the power of every job.
    """

    maximised: ClassVar[bool]
    roles: ClassVar[tuple[str, ...]]
    power_limit_w: float
    _jobs_of_a_choice: ClassVar[int] = 1

    @property
    @abstractmethod
    def goal(self) -> str:
        """What `value` is, with its unit."""

    @property
    def limits(self) -> dict[str, float]:
        """The finite bounds, by the names of the figures that they bound."""
        return {name: limit for name, limit in self._limits().items() if math.isfinite(limit)}

    @abstractmethod
    def _limits(self) -> dict[str, float]:
        """All bounds, infinite where there is none."""

    @cached_property
    @abstractmethod
    def jobs(self) -> tuple[Job, ...]:
        """What may be measured in a mode; no batch that cannot fill within its latency budget."""

    @cached_property
    @abstractmethod
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """What can be chosen in a mode, each as the indices of its jobs.

        The first index is of the job that should be fast. Choices stand in the order in which
        the published search tries them: the smallest batch first for inference alone, the largest
        first beside other work. There are none if every batch takes too long to fill.
        """

    @abstractmethod
    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """What a choice means in one mode, by names with units.

        Parameters
        ----------
        time_s, power_w : FloatArray, shape (n_jobs,)
            Of each job in the mode.
        choice : int
            Index into `choices`.
        """

    @abstractmethod
    def describe(self) -> str:
        """The problem in a line."""

    @abstractmethod
    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Loss, and the largest ratio of a value to its limit, power left out, per choice.

        Arguments have shape (..., n_choices, jobs of a choice).
        """

    def evaluate(self, time_s: FloatArray, power_w: FloatArray) -> Assessment:
        """Judge every choice by what is measured of its jobs.

        Parameters
        ----------
        time_s, power_w : FloatArray, shape (..., n_jobs)
            Of each job, in any number of modes (or samples); NaN where not measured.

        Returns
        -------
        Evaluation
            Arrays of shape (..., n_choices).
        """
        members = self._members
        power = power_w[..., members]
        highest = power.max(axis=-1)
        with np.errstate(divide="ignore"):
            loss, ratio = self._judge(time_s[..., members], power)
            excess = np.log(np.maximum(ratio, highest / self.power_limit_w))
        return Assessment(excess <= 0, loss, excess, highest)

    def value(self, loss: float) -> float:
        """The objective in its unit."""
        return math.exp(-loss if self.maximised else loss)

    def shortfall(self, loss: float, best_loss: float) -> float:
        """How much worse than the best: 1 - rate / best, or time / best - 1; 0.07 is 7 %."""
        gap = loss - best_loss
        return -math.expm1(-gap) if self.maximised else math.expm1(gap)

    def chosen_sizes(self, choice: int) -> dict[str, int]:
        """Batch sizes of a choice by role; training, which has its own, is left out."""
        jobs = [self.jobs[index] for index in self.choices[choice]]
        return {job.role: job.batch_size for job in jobs if job.batch_size is not None}

    @cached_property
    def _members(self) -> IntArray:
        """Jobs of each choice, shape (n_choices, jobs of a choice)."""
        return np.array(self.choices, dtype=np.int64).reshape(-1, self._jobs_of_a_choice)

    def _sizes(self, member: int) -> FloatArray:
        """Batch size of one of the jobs of each choice, shape (n_choices,)."""
        sizes = [self.jobs[choice[member]].batch_size for choice in self.choices]
        return np.array(sizes, dtype=np.float64)


@dataclass(frozen=True)
class Served(Problem):
    """A problem with an inference, whose requests arrive at a rate and are answered in batches."""

    power_limit_w: float
    rate_hz: float
    latency_s: float
    batch_sizes: tuple[int, ...]
    energy_limit_j: float = field(default=math.inf, kw_only=True)

    def __post_init__(self) -> None:
        check_positive(
            power_limit_w=self.power_limit_w,
            rate_hz=self.rate_hz,
            latency_s=self.latency_s,
            energy_limit_j=self.energy_limit_j,
        )
        check_sizes("batch_sizes", self.batch_sizes)

    def _limits(self) -> dict[str, float]:
        return {
            "power_w": self.power_limit_w,
            "latency_s": self.latency_s,
            "energy_j": self.energy_limit_j,
        }

    @property
    def _batches(self) -> tuple[Job, ...]:
        """Those that fill before the oldest request is too late."""
        sizes = (size for size in self.batch_sizes if size / self.rate_hz < self.latency_s)
        return tuple(Job("infer", size) for size in sizes)


def check_positive(**limits: float) -> None:
    """Raise `InvalidInput` for the first limit that is not positive."""
    for name, value in limits.items():
        if not value > 0:
            raise InvalidInput(f"{name} must be positive, got {value:g}")


def check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    """Raise `InvalidInput` unless batch sizes are ascending whole numbers from 1 on."""
    ascending = all(a < b for a, b in pairwise(sizes))
    if not sizes or sizes[0] < 1 or not ascending:
        raise InvalidInput(f"{name} must be ascending whole numbers from 1 on, got {sizes}")


def energy_text(limit_j: float) -> str:
    """A bound of energy in words; nothing if there is none."""
    return "" if math.isinf(limit_j) else f" and {limit_j:g} J"


def guard_text(guard: bool) -> str:
    """What the guard adds to a latency bound, in words."""
    return " with a minibatch running" if guard else ""
