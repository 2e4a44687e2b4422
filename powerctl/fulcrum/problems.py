"""The problems: what is chosen, what is bounded, what is best; as functions over measured modes.

    cycle b/a, in it one inference batch and k = floor((b/a - t_i) / t_t) training minibatches

with b the inference batch, a the arrival rate, t_i and t_t the times of an inference batch and of a
training minibatch. Power is the larger of the two, as one of them runs at a time.

References
----------
Fulcrum (arXiv 2509.20205), its problem formulation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.cycle import Cycle
from powerctl.modes import BoolArray, FloatArray, IntArray

OBJECTIVES = ("rate", "count")


class Job(NamedTuple):
    """A minibatch whose time and power matter: whose it is, and its size.

    `role` is ``"train"``, ``"infer"`` or ``"background"`` (a second inference that can wait);
    training has a batch size of its own, None here.
    """

    role: str
    batch_size: int | None = None

    def __str__(self) -> str:
        return self.role if self.batch_size is None else f"{self.role} x{self.batch_size}"


class Evaluation(NamedTuple):
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
    power_limit_w : float
        Bound of the power of every job.
    """

    maximised: ClassVar[bool]
    power_limit_w: float
    _jobs_of_a_choice: ClassVar[int] = 1

    @property
    @abstractmethod
    def goal(self) -> str:
        """What `value` is, with its unit."""

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

    def evaluate(self, time_s: FloatArray, power_w: FloatArray) -> Evaluation:
        """Judge every choice.

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
        return Evaluation(excess <= 0, loss, excess, highest)

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
class TrainAlone(Problem):
    """Least time of a training minibatch.

    Parameters
    ----------
    power_limit_w : float
        Bound of the power.
    energy_limit_j : float
        Bound of the energy of a minibatch.
    """

    power_limit_w: float
    energy_limit_j: float = math.inf

    maximised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_positive(power_limit_w=self.power_limit_w, energy_limit_j=self.energy_limit_j)

    @property
    def goal(self) -> str:
        """The time of a minibatch."""
        return "time of a minibatch, s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Training."""
        return (Job("train"),)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """One."""
        return ((0,),)

    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """Time, rate, power and energy of a minibatch."""
        t, p = float(time_s[0]), float(power_w[0])
        return {"time_s": t, "train_rate_hz": 1 / t, "power_w": p, "energy_j": t * p}

    def describe(self) -> str:
        """The problem in a line."""
        return f"training alone within {self.power_limit_w:g} W" + _energy_text(self.energy_limit_j)

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        t, p = time_s[..., 0], power_w[..., 0]
        return np.log(t), t * p / self.energy_limit_j


@dataclass(frozen=True)
class InferAlone(Problem):
    """Least latency of inference: of the oldest request of a batch, b/a + t_i.

    Parameters
    ----------
    power_limit_w : float
        Bound of the power.
    rate_hz : float
        Requests that arrive in a second.
    latency_s : float
        Bound of the latency.
    batch_sizes : tuple of int
        To choose from.
    energy_limit_j : float
        Bound of the energy of a batch.
    """

    power_limit_w: float
    rate_hz: float
    latency_s: float
    batch_sizes: tuple[int, ...]
    energy_limit_j: float = math.inf

    maximised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_positive(
            power_limit_w=self.power_limit_w,
            rate_hz=self.rate_hz,
            latency_s=self.latency_s,
            energy_limit_j=self.energy_limit_j,
        )
        _check_sizes("batch_sizes", self.batch_sizes)

    @property
    def goal(self) -> str:
        """The latency."""
        return "latency, s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Inference with each batch size that fills in time."""
        return _batches("infer", self.batch_sizes, self.rate_hz, self.latency_s)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """A batch size, the smallest first."""
        return tuple((index,) for index in range(len(self.jobs)))

    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """Latency, power, cycle and energy of a batch."""
        (infer,) = self.choices[choice]
        t, p = float(time_s[infer]), float(power_w[infer])
        cycle_s = float(self._cycle_s[choice])
        return {
            "latency_s": cycle_s + t,
            "power_w": p,
            "cycle_s": cycle_s,
            "busy_share": t / cycle_s,
            "energy_j": t * p,
        }

    def describe(self) -> str:
        """The problem in a line."""
        return (
            f"inference alone at {self.rate_hz:g}/s, latency {self.latency_s:g} s, "
            f"within {self.power_limit_w:g} W" + _energy_text(self.energy_limit_j)
        )

    @cached_property
    def _cycle_s(self) -> FloatArray:
        return self._sizes(0) / self.rate_hz

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        t, p, cycle_s = time_s[..., 0], power_w[..., 0], self._cycle_s
        latency_s = cycle_s + t
        bounds = (latency_s / self.latency_s, t / cycle_s, t * p / self.energy_limit_j)
        return np.log(latency_s), np.maximum.reduce(bounds)


@dataclass(frozen=True)
class Concurrent(Problem):
    """Most training beside inference.

    Parameters
    ----------
    power_limit_w : float
        Bound of the power of both.
    rate_hz : float
        Requests that arrive in a second.
    latency_s : float
        Bound of the latency of the oldest request of a batch.
    batch_sizes : tuple of int
        Of inference, to choose from.
    objective : str
        ``"rate"``: training minibatches a second, k a/b; ``"count"``: k, those of a cycle, which
        the published work makes most.
    guard : bool
        Whether a full batch may find a training minibatch running and wait for its end:
        b/a + t_i + t_t within the latency. Without, as published, b/a + t_i is.
    energy_limit_j : float
        Bound of the energy of a cycle: an inference batch and the k minibatches, fewer of which
        are run if that keeps it. What the idle module draws in the rest of the cycle is left out.
    """

    power_limit_w: float
    rate_hz: float
    latency_s: float
    batch_sizes: tuple[int, ...]
    objective: str = "rate"
    guard: bool = True
    energy_limit_j: float = math.inf

    maximised: ClassVar[bool] = True
    _jobs_of_a_choice: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_positive(
            power_limit_w=self.power_limit_w,
            rate_hz=self.rate_hz,
            latency_s=self.latency_s,
            energy_limit_j=self.energy_limit_j,
        )
        _check_sizes("batch_sizes", self.batch_sizes)
        if self.objective not in OBJECTIVES:
            raise InvalidInput(
                f"objective is one of {', '.join(OBJECTIVES)}, not {self.objective!r}"
            )

    @property
    def goal(self) -> str:
        """The rate of training, or its minibatches in a cycle."""
        return "training minibatches" + ("/s" if self.objective == "rate" else " in a cycle")

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Training, then inference with each batch size that fills in time."""
        return (
            Job("train"),
            *_batches("infer", self.batch_sizes, self.rate_hz, self.latency_s),
        )

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """Training with a batch size of inference, the largest first."""
        return tuple((0, index) for index in reversed(range(1, len(self.jobs))))

    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """Rate of training, latency (guard included), power, and energy of a cycle."""
        times, powers = time_s[self._members], power_w[self._members]
        figures = self._cycle(times, powers).figures(choice)
        return {"train_rate_hz": figures["minibatches"] / figures["cycle_s"], **figures}

    def describe(self) -> str:
        """The problem in a line."""
        return (
            f"training beside inference at {self.rate_hz:g}/s, latency {self.latency_s:g} s"
            f"{_guard_text(self.guard)}, within {self.power_limit_w:g} W"
            + _energy_text(self.energy_limit_j)
        )

    @cached_property
    def _cycle_s(self) -> FloatArray:
        return self._sizes(1) / self.rate_hz

    def _cycle(self, time_s: FloatArray, power_w: FloatArray) -> Cycle:
        return Cycle.of(self._cycle_s, time_s, power_w, self.guard, self.energy_limit_j)

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        cycle = self._cycle(time_s, power_w)
        ratio = np.maximum(cycle.ratio, cycle.latency_s / self.latency_s)
        if self.objective == "count":
            return -np.log(cycle.minibatches), ratio
        return np.log(self._cycle_s / cycle.minibatches), ratio


@dataclass(frozen=True)
class TwoInferences(Problem):
    """Most throughput of an inference that can wait, beside an urgent one.

    The one that can wait fills the slot that training has in `Concurrent`; there is always work of
    it. Its latency is that of a full batch: t_n, and with the guard t_n + t_u, as it may find an
    urgent batch running.

    Parameters
    ----------
    power_limit_w : float
        Bound of the power of both.
    rate_hz, latency_s, batch_sizes
        Of the urgent one, as in `Concurrent`.
    background_batch_sizes : tuple of int
        Of the one that can wait.
    background_latency_s : float
        Bound of the latency of its batches.
    guard : bool
        Whether each may have to wait for a running minibatch of the other.
    energy_limit_j : float
        Bound of the energy of a cycle, as in `Concurrent`.
    """

    power_limit_w: float
    rate_hz: float
    latency_s: float
    batch_sizes: tuple[int, ...]
    background_batch_sizes: tuple[int, ...]
    background_latency_s: float = math.inf
    guard: bool = True
    energy_limit_j: float = math.inf

    maximised: ClassVar[bool] = True
    _jobs_of_a_choice: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_positive(
            power_limit_w=self.power_limit_w,
            rate_hz=self.rate_hz,
            latency_s=self.latency_s,
            background_latency_s=self.background_latency_s,
            energy_limit_j=self.energy_limit_j,
        )
        _check_sizes("batch_sizes", self.batch_sizes)
        _check_sizes("background_batch_sizes", self.background_batch_sizes)

    @property
    def goal(self) -> str:
        """The throughput of the one that can wait."""
        return "background samples/s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """The one that can wait with each batch size, then the urgent one."""
        return (
            *(Job("background", size) for size in self.background_batch_sizes),
            *_batches("infer", self.batch_sizes, self.rate_hz, self.latency_s),
        )

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """A batch size of each, the largest first; those of the background change fastest."""
        n = len(self.background_batch_sizes)
        urgent = range(n, len(self.jobs))
        return tuple((b, u) for u in reversed(urgent) for b in reversed(range(n)))

    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """Background throughput, latencies (guard included), power, and energy of a cycle."""
        times, powers = time_s[self._members], power_w[self._members]
        figures = self._cycle(times, powers).figures(choice)
        samples = figures["minibatches"] * float(self._sizes(0)[choice])
        return {
            "background_rate_hz": samples / figures["cycle_s"],
            "background_latency_s": float(self._background_s(times)[choice]),
            **figures,
        }

    def describe(self) -> str:
        """The problem in a line."""
        background = (
            ""
            if math.isinf(self.background_latency_s)
            else f" of latency {self.background_latency_s:g} s"
        )
        return (
            f"background inference{background} beside an urgent one at {self.rate_hz:g}/s, "
            f"latency {self.latency_s:g} s{_guard_text(self.guard)}, "
            f"within {self.power_limit_w:g} W" + _energy_text(self.energy_limit_j)
        )

    @cached_property
    def _cycle_s(self) -> FloatArray:
        return self._sizes(1) / self.rate_hz

    def _cycle(self, time_s: FloatArray, power_w: FloatArray) -> Cycle:
        return Cycle.of(self._cycle_s, time_s, power_w, self.guard, self.energy_limit_j)

    def _background_s(self, time_s: FloatArray) -> FloatArray:
        return np.asarray(time_s.sum(axis=-1) if self.guard else time_s[..., 0])

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        cycle = self._cycle(time_s, power_w)
        bounds = (
            cycle.ratio,
            cycle.latency_s / self.latency_s,
            self._background_s(time_s) / self.background_latency_s,
        )
        loss = np.log(self._cycle_s / (cycle.minibatches * self._sizes(0)))
        return loss, np.maximum.reduce(bounds)


def _batches(
    role: str, batch_sizes: tuple[int, ...], rate_hz: float, latency_s: float
) -> tuple[Job, ...]:
    """Those that fill before the oldest request is too late."""
    return tuple(Job(role, size) for size in batch_sizes if size / rate_hz < latency_s)


def _check_positive(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise InvalidInput(f"{name} must be positive, got {value:g}")


def _check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    ascending = all(a < b for a, b in pairwise(sizes))
    if not sizes or sizes[0] < 1 or not ascending:
        raise InvalidInput(f"{name} must be ascending whole numbers from 1 on, got {sizes}")


def _energy_text(limit_j: float) -> str:
    return "" if math.isinf(limit_j) else f" and {limit_j:g} J"


def _guard_text(guard: bool) -> str:
    return " with a minibatch running" if guard else ""
