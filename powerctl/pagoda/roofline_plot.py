"""The picture of rooflines: what modes attain in time and in energy, and where workloads stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from powerctl.durable import write_output
from powerctl.figures import plain_ticks, png_of
from powerctl.modes import FloatArray
from powerctl.pagoda.rooflines import Rooflines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f5fa8", "#e07b00", "#2f8f4e", "#c0241c", "#7a4fa3", "#6b6b6b")
_MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class WorkloadPoint:
    """What a minibatch does in a mode.

    Attributes
    ----------
    workload : str
        Its name, with the batch size.
    mode : int
        Which of the modes drawn.
    flop, dram_bytes : float
        Of the minibatch.
    time_s, energy_j : float
        What it takes.
    measured : bool
        Whether that was measured; drawn filled.
    """

    workload: str
    mode: int
    flop: float
    dram_bytes: float
    time_s: float
    energy_j: float
    measured: bool = False

    @property
    def intensity(self) -> float:
        """Arithmetic intensity of the minibatch, FLOP per byte."""
        return self.flop / self.dram_bytes


def plot_rooflines(
    path: Path,
    rooflines: Rooflines,
    modes: Sequence[str],
    points: Sequence[WorkloadPoint],
    title: str,
) -> None:
    """Write a PNG of the time rooflines and the energy rooflines of some modes, log-log.

    Parameters
    ----------
    path : Path
        The file.
    rooflines : Rooflines
        Arrays of shape (n_modes,).
    modes : sequence of str
        What the modes are called.
    points : sequence of WorkloadPoint
        To be drawn in both.
    title : str
        What is drawn.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    at = _intensities(rooflines, points)
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("arithmetic intensity (FLOP per byte of DRAM traffic)")
        axes.grid(color="0.93", lw=0.6)
        axes.set_axisbelow(True)
    names = list(dict.fromkeys(point.workload for point in points))
    for i, name in enumerate(modes):
        colour = _COLOURS[i % len(_COLOURS)]
        one = Rooflines(*(getattr(rooflines, f)[i : i + 1] for f in _FIELDS))
        attained = np.minimum(one.peak_flops, at * one.peak_bandwidth) / 1e9
        left.plot(at, attained, color=colour, label=name)
        left.axvline(float(one.time_balance[0]), color=colour, ls=":", lw=0.8)
        right.plot(at, one.flop_per_j(at) / 1e9, color=colour, label=name)
        half = float(one.half_efficiency_intensity[0])
        right.axvline(half, color=colour, ls=":", lw=0.8)
    for point in points:
        colour = _COLOURS[point.mode % len(_COLOURS)]
        marker = _MARKERS[names.index(point.workload) % len(_MARKERS)]
        face = colour if point.measured else "white"
        for axes, cost in ((left, point.time_s), (right, point.energy_j)):
            axes.scatter(
                point.intensity,
                point.flop / cost / 1e9,
                marker=marker,
                s=44,
                facecolor=face,
                edgecolor=colour,
                zorder=3,
            )
    left.set_ylabel("GFLOP/s")
    left.set_title("time: dotted, where compute and memory balance", fontsize=10)
    right.set_ylabel("GFLOP per joule")
    right.set_title("energy: dotted, where half the peak efficiency is reached", fontsize=10)
    for axes in (left, right):
        axes.set_ylim(top=3 * axes.get_ylim()[1])  # room for the legend
        plain_ticks(axes.xaxis, *axes.get_xlim())
        plain_ticks(axes.yaxis, *axes.get_ylim())
    _legends(left, right, names, any(point.measured for point in points))
    figure.suptitle(title, fontsize=11)
    write_output(path, png_of(figure, dpi=150))


_FIELDS = tuple(Rooflines.__dataclass_fields__)


def _intensities(rooflines: Rooflines, points: Sequence[WorkloadPoint]) -> FloatArray:
    """Two decades about the balance points, and all workloads."""
    seen = np.array([*rooflines.time_balance, *(point.intensity for point in points)])
    low, high = np.log10(seen.min()) - 1, np.log10(seen.max()) + 1
    return np.logspace(low, high, 300)


def _legends(left: Axes, right: Axes, names: Sequence[str], measured: bool) -> None:
    """Modes by colour in the left picture, workloads by marker in the right one."""
    from matplotlib.lines import Line2D

    left.legend(fontsize=9, loc="upper left")
    handles = [
        Line2D([], [], ls="", marker=_MARKERS[i % len(_MARKERS)], color="0.3", mfc="white")
        for i in range(len(names))
    ]
    labels = list(names)
    if measured:
        handles.append(Line2D([], [], ls="", marker="o", color="0.3"))
        labels.append("filled: measured")
    if labels:
        right.legend(handles, labels, fontsize=9, loc="upper left")
