"""A cycle: one inference batch, and minibatches of another job in the rest of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from powerctl.modes import FloatArray

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
