"""One workload alone: training as fast, or requests answered as soon, as the bounds allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from powerctl.fulcrum.problems.problem import Job, Problem, Served, check_positive, energy_text
from powerctl.modes import FloatArray


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
    roles: ClassVar[tuple[str, ...]] = ("train",)

    def __post_init__(self) -> None:
        check_positive(power_limit_w=self.power_limit_w, energy_limit_j=self.energy_limit_j)

    def _limits(self) -> dict[str, float]:
        return {"power_w": self.power_limit_w, "energy_j": self.energy_limit_j}

    @property
    def goal(self) -> str:
        """The time of a minibatch."""
        return "time of a minibatch, s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Training alone, which has a batch size of its own."""
        return (Job("train"),)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """A single choice: there is nothing to choose beside the mode."""
        return ((0,),)

    def figures(self, time_s: FloatArray, power_w: FloatArray, choice: int) -> dict[str, float]:
        """Time, rate, power and energy of a minibatch."""
        t, p = float(time_s[0]), float(power_w[0])
        return {"time_s": t, "train_rate_hz": 1 / t, "power_w": p, "energy_j": t * p}

    def describe(self) -> str:
        """The problem in a line."""
        return f"training alone within {self.power_limit_w:g} W" + energy_text(self.energy_limit_j)

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        t, p = time_s[..., 0], power_w[..., 0]
        return np.log(t), t * p / self.energy_limit_j


@dataclass(frozen=True)
class InferAlone(Served):
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

    maximised: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("infer",)

    @property
    def goal(self) -> str:
        """The latency of the oldest request of a batch."""
        return "latency, s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Inference with each batch size that fills in time."""
        return self._batches

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
            f"within {self.power_limit_w:g} W" + energy_text(self.energy_limit_j)
        )

    @cached_property
    def _cycle_s(self) -> FloatArray:
        return self._sizes(0) / self.rate_hz

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        t, p, cycle_s = time_s[..., 0], power_w[..., 0], self._cycle_s
        latency_s = cycle_s + t
        bounds = (latency_s / self.latency_s, t / cycle_s, t * p / self.energy_limit_j)
        return np.log(latency_s), np.maximum.reduce(bounds)
