"""Constants between counts and effective work, fitted to the tables of some networks.

Symbols are those of `powerctl.pagoda.estimate`. Each constant starts from a round guess that no
measured table has a part in, and is fitted in its logarithm by least squares: misfits of log time
and log power count as `calibration.NOISE`, and a guess as known to a factor of `e ** _WIDTH`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from scipy.optimize import least_squares

from powerctl.calibration import BOUNDS, GENERIC, NOISE
from powerctl.cost_model import Hardware, minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.estimate import Efficiency, estimate_signature

Case: TypeAlias = tuple[CountedModel, str, Hardware, MeasurementTable]  # and what a sample is

_WIDTH = 0.7
_ROWS = 250  # of a table: a dozen constants are determined by fewer
_SIZE = 16  # samples of a minibatch where a table does not say
# Tensor cores give convolutions TF32, matrix products run as FP32: PyTorch's defaults, and set.
_SET = {
    "convolution_efficiency": 3.0,
    "product_efficiency": 0.76,
    "recurrent_launch_share": 0.01,
    "recurrent_bytes_share": 0.1,
}
_GUESSES = {
    "flop_per_onchip_byte": 40.0,
    "thin_share": 0.4,
    "dram_efficiency": 0.6,
    "launch_cycles_per_kernel": 1e5,
    "host_cycles": 3e7,
    "image": 1e7,
    "tokens": 1e6,
}
_SHAPE = (
    *("host_stall_clocks", "serial_cores", "background_hz", "loader_cores", "traffic_exponent"),
    *("gpu_norm", "overlap_norm", "gpu_activity", "host_activity", "traffic_activity"),
)


def fitted_efficiency(cases: Sequence[Case]) -> Efficiency:
    """The constants of a kind that explain the tables of some networks of it best."""
    kind = cases[0][0].kind
    names = (*_GUESSES, *_SHAPE)
    guess = np.log([_GUESSES.get(n) or getattr(GENERIC, n) for n in names])
    rows = [_sample(table) for _, _, _, table in cases]

    def misfit(logs: FloatArray) -> FloatArray:
        efficiency = _efficiency(kind, dict(zip(names, np.exp(logs).tolist(), strict=True)))
        parts = [(logs - guess) / _WIDTH]
        for (model, sample, hardware, _), table in zip(cases, rows, strict=True):
            signature = estimate_signature(model.counts, kind, sample, efficiency)
            sizes = _SIZE if table.batch_size is None else table.batch_size
            cost = minibatch_cost(hardware, signature, *table.modes, sizes)
            # Each network counts alike, however many rows there are of it.
            weight = np.sqrt(_ROWS / len(table)) / NOISE
            parts += [
                weight * np.log(cost.time_s / table.time_s),
                weight * np.log(cost.power_w / table.power_w),
            ]
        return np.concatenate(parts)

    wide = (1e-6, 1e12)
    low, high = np.log([BOUNDS.get(name, wide) for name in names]).T
    found = least_squares(misfit, guess, bounds=(low, high), loss="soft_l1", f_scale=2.0)
    return _efficiency(kind, dict(zip(names, np.exp(found.x).tolist(), strict=True)))


def _efficiency(kind: str, values: dict[str, float]) -> Efficiency:
    """Of the constants that are free; a kind has what its minibatches have."""
    infers = kind == "infer"
    of_sample = {name: values[name] for name in ("image", "tokens")}
    shape = {name: values[name] for name in _SHAPE}
    shape |= {"launch_stall_clocks": 0.002, "launch_norm": 3.0 if infers else 1.0}
    direct = ("flop_per_onchip_byte", "thin_share", "dram_efficiency", "launch_cycles_per_kernel")
    return Efficiency(
        **_SET,
        **{name: values[name] for name in direct},
        fixed_samples=1.0 if infers else 0.0,
        host_cycles=values["host_cycles"] if infers else 0.0,
        host_cycles_per_sample=of_sample,
        shape=shape,
    )


def _sample(table: MeasurementTable) -> MeasurementTable:
    drawn = np.random.default_rng(0).permutation(len(table))[:_ROWS]
    return table.take(np.sort(drawn))
