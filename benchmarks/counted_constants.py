"""Constants between counts and effective work, fitted to the tables of some networks.

Two or three networks do not determine a dozen constants. So constants are pooled in part:

    log constant, of a table = log guess + s + k + t

======  ======================================================  =================================
symbol  meaning                                                 deviation beforehand
======  ======================================================  =================================
guess   a round number that no measured table has a part in     (`_GUESSES`, `GENERIC`)
s       what all workloads share                                `_SHARED`
k       what workloads of a kind, training or inference, share  `_KIND`
t       what is a table's own: its network's kernels, its data  `_OWN`; on sizes and shapes
======  ======================================================  =================================

All are fitted together, by least squares in logarithms of times and powers, whose misfits count as
`calibration.NOISE`. Of a network that was never measured t is 0. Other symbols are those of
`powerctl.pagoda.estimate`. Constants of the GPU are bounded by what can be: no more than its peaks.

References
----------
Gelman and Hill (2007), Data Analysis Using Regression and Multilevel Models, on partial pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TypeAlias

import numpy as np
from scipy.optimize import least_squares

from powerctl.calibration import BOUNDS, GENERIC, NOISE
from powerctl.cost_model import Hardware, Signature, minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.estimate import Efficiency, estimate_signature

Case: TypeAlias = tuple[CountedModel, Hardware, MeasurementTable]

_ROWS = 250  # of a table: a dozen constants are determined by fewer
_SIZE = 16  # samples of a minibatch where a table does not say
_STEP = 1e-5  # of a logarithm, for differences
_EVALUATIONS = 40  # at most; half of them are enough but for networks unlike all others
# Tensor cores give convolutions TF32, matrix products run as FP32: PyTorch's defaults, and set.
_SET = {
    "convolution_efficiency": 3.0,
    "product_efficiency": 0.76,
    "recurrent_launch_share": 0.01,
    "recurrent_bytes_share": 0.1,
}
_GPU = {
    "flop_per_onchip_byte": 40.0,
    "thin_share": 0.4,
    "dram_efficiency": 0.6,
    "launch_cycles_per_kernel": 1e5,
    "flop_per_kernel": 3e7,
    "flop_energy_bytes": 0.03,
}
_HOST = {"fixed_host_samples": 4.0, "image": 1e7, "token": 3e4}
_GUESSES = {**_GPU, **_HOST}
_SHAPE = (
    *("host_stall_clocks", "serial_cores", "background_hz", "loader_cores", "traffic_exponent"),
    *("gpu_norm", "overlap_norm", "gpu_activity", "host_activity", "traffic_activity"),
)
_NAMES = (*_GUESSES, *_SHAPE)
# A size of a table's own has a fixed part and a part per sample.
_SIZES = (
    ("host_cycles", "host_cycles_per_sample"),
    ("flop",),
    ("flop_per_sample",),
    ("traffic_bytes", "traffic_bytes_per_sample"),
    ("launch_cycles",),
)
# How far the GPU's constants, the host's and shapes are from the guess, and kinds from each other:
# samples are prepared in other ways for training, kernels of a backward pass are others, and what
# a minibatch of inference begins with is launched for few of them.
_SHARED = np.array([0.25] * len(_GPU) + [0.7] * len(_HOST) + [0.4] * len(_SHAPE))
_KIND = np.array(
    [1.0 if name == "launch_cycles_per_kernel" else 0.5 for name in _GPU]
    + [0.7] * len(_HOST)
    + [0.5] * len(_SHAPE)
)
# Files differ, and kernels: two thirds of it, and twice, predict what is left out worse.
_OWN = np.array([0.6, 0.75, 0.45, 0.45, 0.6] + [0.45] * len(_SHAPE))
_SHARES = dict.fromkeys(("thin_share", "dram_efficiency"), (1e-3, 1.0))
_ANY = (1e-6, 1e12)


def fitted_efficiency(kind: str, cases: Sequence[Case]) -> Efficiency:
    """The constants of a kind that explain the tables of some networks best, of any kind each."""
    kinds = sorted({kind, *(model.kind for model, *_ in cases)})
    fit = _Fit(kinds, cases)
    start = np.zeros(len(fit.widths))
    found = least_squares(
        fit.misfit, start, jac=fit.slopes, loss="soft_l1", f_scale=2.0, max_nfev=_EVALUATIONS
    )
    return fit.efficiency(found.x, kind)


class _Fit:
    """The misfit of all tables; one vector holds s, then k of each kind, then t of each table."""

    def __init__(self, kinds: Sequence[str], cases: Sequence[Case]) -> None:
        self.kinds, self.cases = kinds, cases
        self.rows = [_sample(table) for *_, table in cases]
        self.guess = np.log([_GUESSES.get(n) or getattr(GENERIC, n) for n in _NAMES])
        bounds = {**BOUNDS, **_SHARES}
        self.low, self.high = np.log([bounds.get(name, _ANY) for name in _NAMES]).T
        parts = [_SHARED, np.tile(_KIND, len(kinds)), np.tile(_OWN, len(cases))]
        self.widths = np.concatenate(parts)

    def of_kind(self, kind: str) -> slice:
        """Where k of a kind stands."""
        start = (1 + self.kinds.index(kind)) * len(_NAMES)
        return slice(start, start + len(_NAMES))

    def own(self, case: int) -> slice:
        """Where t of a table stands."""
        start = (1 + len(self.kinds)) * len(_NAMES) + case * len(_OWN)
        return slice(start, start + len(_OWN))

    def efficiency(self, x: FloatArray, kind: str) -> Efficiency:
        """The constants of a kind."""
        logs = self.guess + x[: len(_NAMES)] + x[self.of_kind(kind)]
        values = np.exp(np.clip(logs, self.low, self.high)).tolist()
        return _efficiency(kind, dict(zip(_NAMES, values, strict=True)))

    def of_table(self, x: FloatArray, case: int) -> FloatArray:
        """Misfits of log times and log powers of a table."""
        model, hardware, _ = self.cases[case]
        table = self.rows[case]
        efficiency = self.efficiency(x, model.kind)
        signature = estimate_signature(model.counts, model.kind, model.tokens, efficiency)
        sizes = _SIZE if table.batch_size is None else table.batch_size
        cost = minibatch_cost(hardware, _changed(signature, x[self.own(case)]), *table.modes, sizes)
        # Each network counts alike, however many rows there are of it.
        weight = np.sqrt(_ROWS / len(table)) / NOISE
        both = [np.log(cost.time_s / table.time_s), np.log(cost.power_w / table.power_w)]
        return np.asarray(weight * np.concatenate(both))

    def misfit(self, x: FloatArray) -> FloatArray:
        """Deviations from what was expected, and misfits of all tables."""
        tables = [self.of_table(x, case) for case in range(len(self.cases))]
        return np.concatenate([x / self.widths, *tables])

    def slopes(self, x: FloatArray) -> FloatArray:
        """Derivatives of `misfit`: s and k of a table's kind move it alike."""
        parts = [np.diag(1 / self.widths)]
        for case, (model, *_) in enumerate(self.cases):
            own, at = self.own(case), self.of_table(x, case)
            of_table = np.zeros((len(at), len(x)))
            for i in (*range(len(_NAMES)), *range(own.start, own.stop)):
                moved = x.copy()
                moved[i] += _STEP
                of_table[:, i] = (self.of_table(moved, case) - at) / _STEP
            of_table[:, self.of_kind(model.kind)] = of_table[:, : len(_NAMES)]
            parts.append(of_table)
        return np.concatenate(parts)


def _changed(signature: Signature, logs: FloatArray) -> Signature:
    """A signature with what is a table's own, within the bounds of the cost model."""
    factors = np.exp(logs).tolist()
    values = asdict(signature)
    for names, factor in zip((*_SIZES, *((name,) for name in _SHAPE)), factors, strict=True):
        for name in names:
            low, high = BOUNDS.get(name, (0.0, np.inf))
            values[name] = min(max(factor * values[name], low), high)
    return replace(signature, **values)


def _efficiency(kind: str, values: dict[str, float]) -> Efficiency:
    """Of the constants that are free; a kind has what its minibatches have."""
    infers = kind == "infer"
    shape = {name: values[name] for name in _SHAPE}
    shape |= {"launch_stall_clocks": 0.002, "launch_norm": 3.0 if infers else 1.0}
    return Efficiency(
        **_SET,
        **{name: values[name] for name in _GPU},
        fixed_host_samples=values["fixed_host_samples"] if infers else 0.0,
        host_cycles={name: values[name] for name in ("image", "token")},
        shape=shape | {"host_wait_share": float(infers)},
    )


def _sample(table: MeasurementTable) -> MeasurementTable:
    drawn = np.random.default_rng(0).permutation(len(table))[:_ROWS]
    return table.take(np.sort(drawn))
