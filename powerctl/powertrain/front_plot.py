"""The picture of a mode space: every mode, the front among them, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from powerctl.durable import write_output
from powerctl.figures import BLUE, ORANGE, RED, plain_ticks, png_of
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray
from powerctl.pareto import pareto_front
from powerctl.powertrain.prediction import Prediction

_90_PCT = 1.645  # standard deviations to each side
_NEAR = 3.0  # times the far ends of the front, beyond which modes are of no interest


def plot_front(
    path: Path,
    costs: Prediction,
    cost: str,
    title: str,
    *,
    measured: MeasurementTable | None = None,
    limit_w: float | None = None,
    chosen: tuple[int, str] | None = None,
) -> None:
    """Write a PNG of all modes in the time-energy or time-power plane, with their front.

    Parameters
    ----------
    path : Path
        The file.
    costs : Prediction
        Of all modes.
    cost : str
        ``"energy"`` or ``"power"``.
    title : str
        What costs so much, and where that is from.
    measured : MeasurementTable, optional
        What was measured.
    limit_w : float, optional
        A power limit; drawn as a line in the plane of time and power.
    chosen : tuple of int and str, optional
        A mode to point out, and what it is.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    is_energy = cost == "energy"
    time_ms, values = 1e3 * costs.time_s, costs.energy_j if is_energy else costs.power_w
    front = pareto_front(costs.time_s, values)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")

    def scatter(what: str, x: FloatArray, y: FloatArray, **style: Any) -> None:
        near = (x <= _NEAR * time_ms[front[-1]]) & (y <= _NEAR * values[front[0]])
        label = f"{what}, {near.sum():,}" + ("" if near.all() else f" of {len(near):,}")
        axes.scatter(x[near], y[near], label=label, **style)

    scatter("modes", time_ms, values, s=3 if len(values) > 2_000 else 8, color="0.82", lw=0)
    label = f"front, {len(front)}"
    axes.step(time_ms[front], values[front], where="post", color=BLUE, label=label)
    std = np.hypot(costs.time_std, costs.power_std) if is_energy else costs.power_std
    if std.any():
        factor = np.exp(_90_PCT * std[front])
        low, high = values[front] / factor, values[front] * factor
        label = f"90 % interval of its {cost}"
        band = axes.fill_between(time_ms[front], low, high, step="post")
        band.set(color=BLUE, alpha=0.2, linewidth=0, label=label)
    if measured is not None:
        seen = measured.energy_j if is_energy else measured.power_w
        scatter("measured", 1e3 * measured.time_s, seen, marker="x", s=28, color=ORANGE, lw=1.4)
    if limit_w is not None and not is_energy:
        axes.axhline(limit_w, color=RED, ls="--", lw=1, label=f"limit {limit_w:g} W")
    if chosen is not None:
        row, name = chosen
        circle = axes.scatter(time_ms[row], values[row], s=60, edgecolors=RED, linewidths=1.8)
        circle.set(facecolor="none", zorder=5, label=name)
    axes.set_xlabel("time of a minibatch (ms)")
    axes.set_ylabel("energy of a minibatch (J)" if is_energy else "power of the module (W)")
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.93", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=9, loc="upper left" if is_energy else "upper right")
    plain_ticks(axes.xaxis, *axes.get_xlim())
    plain_ticks(axes.yaxis, *axes.get_ylim())
    write_output(path, png_of(figure, dpi=140))
