"""Two workloads in turns: training, or an inference that can wait, beside an urgent inference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems.problem import (
    Job,
    Served,
    check_positive,
    check_sizes,
    energy_text,
    guard_text,
)
from powerctl.modes import FloatArray

OBJECTIVES = ("rate", "count")
_ROUNDING = 1e-9  # of a minibatch: what floating point may take from a slot that just fits


class Cycle(NamedTuple):
    """What fits into the cycle of each choice; arrays of shape (..., n_choices).

    `ratio` is the largest of: what the batch and one minibatch need, of the cycle and of its
    energy. Where it is above 1 not one minibatch fits, and `minibatches` is the share that does.
    """

    cycle_s: FloatArray
    latency_s: FloatArray
    minibatches: FloatArray
    ratio: FloatArray
    time_s: FloatArray
    power_w: FloatArray

    @classmethod
    def of(
        cls,
        cycle_s: FloatArray,
        time_s: FloatArray,
        power_w: FloatArray,
        guard: bool,
        energy_limit_j: float,
    ) -> Cycle:
        """The cycles of times and powers of shape (..., n_choices, 2): slot, then inference."""
        slot_s, infer_s = time_s[..., 0], time_s[..., 1]
        room = (cycle_s - infer_s) / slot_s
        ratio = (infer_s + slot_s * (1 - _ROUNDING)) / cycle_s
        if not math.isinf(energy_limit_j):
            energy_j = time_s * power_w
            room = np.minimum(room, (energy_limit_j - energy_j[..., 1]) / energy_j[..., 0])
            ratio = np.maximum(ratio, energy_j.sum(axis=-1) / energy_limit_j)
        whole = np.maximum(np.floor(room + _ROUNDING), 1)
        waiting_s = infer_s + slot_s if guard else infer_s
        return cls(
            cycle_s=cycle_s,
            latency_s=cycle_s + waiting_s,
            minibatches=np.where(ratio > 1, 1 / ratio, whole),
            ratio=ratio,
            time_s=time_s,
            power_w=power_w,
        )

    def figures(self, choice: int) -> dict[str, float]:
        """Of one choice in one mode; the mean power is of the time in which either runs."""
        counts = np.array([self.minibatches[choice], 1.0])
        busy_s = counts @ self.time_s[choice]
        energy_j = counts @ (self.time_s * self.power_w)[choice]
        return {
            "minibatches": float(self.minibatches[choice]),
            "latency_s": float(self.latency_s[choice]),
            "power_w": float(self.power_w[choice].max()),
            "mean_power_w": float(energy_j / busy_s),
            "cycle_s": float(self.cycle_s[choice]),
            "busy_share": float(busy_s / self.cycle_s[choice]),
            "energy_j": float(energy_j),
        }


@dataclass(frozen=True)
class _Sharing(Served):
    """An urgent inference, and between its batches as much other work as fits the cycle."""

    guard: bool = field(default=True, kw_only=True)

    maximised: ClassVar[bool] = True
    _jobs_of_a_choice: ClassVar[int] = 2

    @cached_property
    def _cycle_s(self) -> FloatArray:
        return self._sizes(1) / self.rate_hz

    def _cycle(self, time_s: FloatArray, power_w: FloatArray) -> Cycle:
        return Cycle.of(self._cycle_s, time_s, power_w, self.guard, self.energy_limit_j)


@dataclass(frozen=True)
class Concurrent(_Sharing):
    """Most training beside inference, within bounds of power, latency and energy.

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

    objective: str = "rate"

    roles: ClassVar[tuple[str, ...]] = ("train", "infer")

    def __post_init__(self) -> None:
        super().__post_init__()
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
        return (Job("train"), *self._batches)

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
            f"{guard_text(self.guard)}, within {self.power_limit_w:g} W"
            + energy_text(self.energy_limit_j)
        )

    def _judge(self, time_s: FloatArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
        cycle = self._cycle(time_s, power_w)
        ratio = np.maximum(cycle.ratio, cycle.latency_s / self.latency_s)
        if self.objective == "count":
            return -np.log(cycle.minibatches), ratio
        return np.log(self._cycle_s / cycle.minibatches), ratio


@dataclass(frozen=True)
class TwoInferences(_Sharing):
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

    background_batch_sizes: tuple[int, ...]
    background_latency_s: float = math.inf

    roles: ClassVar[tuple[str, ...]] = ("infer", "background")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(background_latency_s=self.background_latency_s)
        check_sizes("background_batch_sizes", self.background_batch_sizes)

    def _limits(self) -> dict[str, float]:
        return {**super()._limits(), "background_latency_s": self.background_latency_s}

    @property
    def goal(self) -> str:
        """The throughput of the one that can wait."""
        return "background samples/s"

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """The one that can wait with each batch size, then the urgent one."""
        return (
            *(Job("background", size) for size in self.background_batch_sizes),
            *self._batches,
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
            f"latency {self.latency_s:g} s{guard_text(self.guard)}, "
            f"within {self.power_limit_w:g} W" + energy_text(self.energy_limit_j)
        )

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
