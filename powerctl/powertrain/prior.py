"""What is known of a workload before it is measured: parameters of the cost model, and how surely.

Everything is in logarithms. The prior's mean comes from reference workloads; its widths say how
much workloads and boards differ, and were chosen once, wide enough for workloads unlike any
reference.

    x ~ N(m, V)              x: logarithms of the free parameters (`Prior.names`)
    V = diag(w^2) + s^2 u u^T

    m   geometric mean over the references; boards' constants times what references found of theirs
    w   width of each parameter (`_WIDTH`, `_SAME_BOARD`, `_OTHER_BOARD`)
    s   width of the workload's size (`_SHARED_SIZE`), which all its parts u share

An estimate z of some parameters from counts, with errors of covariance E, updates it as Kalman's
measurement does: gain K = V (V + E)^-1, then m + K (z - m) and V - K V. Its sizes are not held to
the references': before, V has a (`_COUNTED_AWAY`) squared more for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from powerctl.boards import Board, load_board
from powerctl.calibration import ACTIVITIES, BOUNDS, FIXED, GENERIC, PER_SAMPLE, SHAPES
from powerctl.cost_model import Hardware, Signature
from powerctl.modes import FloatArray
from powerctl.powertrain.reference import Reference

SIZES = (*PER_SAMPLE, *FIXED, "launch_cycles")
TIME_SHAPES = (*SHAPES, "launch_norm")
WATTS = (
    "static_w",
    "mem_w",
    "mem_exponent",
    "gpu_idle_w",
    "core_online_w",
    "cluster_w",
    "gpu_voltage_rise",
    "gpu_voltage_knee",
    "cpu_voltage_rise",
    "cpu_voltage_knee",
)
_BOUNDS = {
    **BOUNDS,
    "mem_exponent": (0.2, 3.0),
    **dict.fromkeys(("gpu_voltage_rise", "cpu_voltage_rise"), (0.01, 4.0)),
    **dict.fromkeys(("gpu_voltage_knee", "cpu_voltage_knee"), (0.02, 0.95)),
}

_WIDTH = {
    **dict.fromkeys(TIME_SHAPES, 0.5),
    **dict.fromkeys(SIZES, 0.8),
    **dict.fromkeys(ACTIVITIES, 0.5),
}
_SHARED_SIZE = 2.0  # workloads differ in size by e^2, all parts together
_SAME_BOARD, _OTHER_BOARD = 0.15, 0.3
_WITHOUT_REFERENCE = 2.0  # times all widths but those of the board
# A workload of the other kind, or with several batch sizes where no reference has them: how much
# wider. Fixed parts are guessed as those of two samples.
_OTHER_KIND = {
    **dict.fromkeys((*FIXED, "launch_cycles"), 1.5),
    **dict.fromkeys(("launch_norm", "launch_stall_clocks"), 0.7),
    **dict.fromkeys(ACTIVITIES, 0.5),
}
_FIXED_SAMPLES = 2.0
# How far an estimate from counts is from the truth: each part by itself, and all sizes together.
_COUNTED = {
    **_WIDTH,
    **dict.fromkeys(SIZES, 0.3),
    **dict.fromkeys(("host_cycles_per_sample", "launch_cycles"), 0.5),
    **dict.fromkeys(FIXED, 1.0),
}
_COUNTED_TOGETHER = 0.2
# How far each size may be from the references' where it is counted: as far as a net of two layers.
_COUNTED_AWAY = 3.0


@dataclass(frozen=True)
class Prior:
    """A normal distribution of the logarithms of the cost model's free parameters.

    Attributes
    ----------
    hardware, signature
        The cost model at the mean; what is not free keeps these values.
    names : tuple of str
        The free parameters.
    mean : FloatArray, shape (n_parameters,)
    covariance : FloatArray, shape (n_parameters, n_parameters)
    """

    hardware: Hardware
    signature: Signature
    names: tuple[str, ...]
    mean: FloatArray
    covariance: FloatArray

    def model(self, log_values: FloatArray) -> tuple[Hardware, Signature]:
        """The cost model with some values of the free parameters."""
        values = dict(zip(self.names, np.exp(log_values).tolist(), strict=True))
        watts = {name: values.pop(name) for name in WATTS}
        return replace(self.hardware, **watts), replace(self.signature, **values)

    def updated(self, signature: Signature, batch_size: int) -> Prior:
        """After an estimate of the workload from counts, taken as a measurement of its parameters.

        Without fixed parts among the free parameters, parts per sample are those of a minibatch.
        """
        if not set(FIXED) <= set(self.names):
            signature = _without_fixed_parts(signature, batch_size)
        names = [n for n in self.names if n in _COUNTED and getattr(signature, n) > 0]
        at = [self.names.index(name) for name in names]
        together = _COUNTED_TOGETHER * np.array([name in SIZES for name in names])
        error = np.diag([_COUNTED[name] ** 2 for name in names]) + np.outer(together, together)
        away = [_COUNTED_AWAY * (name in SIZES and name in names) for name in self.names]
        covariance = self.covariance + np.diag(np.square(away))
        surprise = np.log([getattr(signature, name) for name in names]) - self.mean[at]
        gain = np.linalg.solve(covariance[np.ix_(at, at)] + error, covariance[at]).T
        return replace(
            self,
            mean=self.mean + gain @ surprise,
            covariance=covariance - gain @ covariance[at],
        )

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """The logarithms between which the cost model is made for values of its parameters."""
        lowest, highest = np.log([_BOUNDS.get(name, (1e-30, 1e30)) for name in self.names]).T
        return lowest, highest


def prior_for(board: Board, kind: str, batched: bool, references: Sequence[Reference]) -> Prior:
    """The prior of a workload.

    Parameters
    ----------
    board : Board
        Where it runs.
    kind : str
        ``"train"`` or ``"infer"``.
    batched : bool
        Whether batch sizes vary, so that fixed parts and parts per sample can be told apart.
    references : sequence of Reference
        Those of the same kind count for the workload, those of the same board for the board.
    """
    same_kind = [r for r in references if r.kind == kind] or list(references)
    same_board = [r for r in references if r.board == board.name] or list(references)
    signature = _mean_signature(same_kind)
    hardware = _mean_hardware(board, same_board)
    alien = not any(r.kind == kind and r.batched >= batched for r in references)
    if batched and alien:
        signature = _with_fixed_parts(signature)
    elif not batched:
        reference_size = same_kind[0].batch_size if same_kind else 16
        signature = _without_fixed_parts(signature, reference_size)
    if batched:  # what a minibatch of any size waits for takes time, and draws no power
        signature = replace(signature, host_wait_share=1.0)
    names = tuple(n for n in (*SIZES, *TIME_SHAPES, *ACTIVITIES) if batched or n not in FIXED)
    values = [getattr(signature, n) for n in names] + [getattr(hardware, n) for n in WATTS]
    mean = np.log(values)

    width = np.array([_WIDTH[name] for name in names])
    if not references:
        width *= _WITHOUT_REFERENCE
    elif alien:
        width = np.hypot(width, [_OTHER_KIND.get(name, 0.0) for name in names])
    known_board = any(r.board == board.name for r in references)
    watts = np.full(len(WATTS), _SAME_BOARD if known_board else _OTHER_BOARD)
    covariance = np.diag(np.concatenate([width, watts]) ** 2)
    together = np.array([name in SIZES for name in (*names, *WATTS)], dtype=np.float64)
    covariance += _SHARED_SIZE**2 * np.outer(together, together)
    return Prior(hardware, signature, (*names, *WATTS), mean, covariance)


def _mean_signature(references: Sequence[Reference]) -> Signature:
    """The geometric mean, of each field over the references that have it."""
    if not references:
        return GENERIC
    mean = {}
    for name in (*SIZES, *TIME_SHAPES, *ACTIVITIES):
        present = [v for r in references if (v := getattr(r.signature, name)) > 0]
        mean[name] = float(np.exp(np.mean(np.log(present)))) if present else 0.0
    return replace(references[0].signature, **mean)


def _mean_hardware(board: Board, references: Sequence[Reference]) -> Hardware:
    """The board's catalogue constants, times what the references found of theirs."""
    watts = {}
    for name in WATTS:
        found = [
            np.log(getattr(r.hardware, name) / getattr(load_board(r.board).hardware, name))
            for r in references
        ]
        watts[name] = getattr(board.hardware, name) * float(np.exp(np.mean(found or [0.0])))
    return replace(board.hardware, **watts)


def _with_fixed_parts(signature: Signature) -> Signature:
    fixed = {name: _FIXED_SAMPLES * getattr(signature, f"{name}_per_sample") for name in FIXED}
    return replace(signature, **fixed)


def _without_fixed_parts(signature: Signature, batch_size: int) -> Signature:
    """All of a minibatch of a size as parts per sample.

    Cores are then as busy while they wait as while they work, on average.
    """
    parts = {
        f"{name}_per_sample": getattr(signature, f"{name}_per_sample")
        + getattr(signature, name) / batch_size
        for name in FIXED
    }
    waiting = signature.host_wait_share * signature.host_cycles
    if waiting:
        busy = 1 - waiting / batch_size / parts["host_cycles_per_sample"]
        parts["host_activity"] = busy * signature.host_activity
    return replace(signature, **parts, **dict.fromkeys(FIXED, 0.0), host_wait_share=0.0)
