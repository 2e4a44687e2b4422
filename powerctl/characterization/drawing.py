"""Plots of a study, one for each slice: where time goes, how rates grow, how modes trade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from powerctl.characterization.plan import Cell
from powerctl.characterization.results import FIRST, LATER
from powerctl.characterization.study import Slice, Study
from powerctl.figures import png_of
from powerctl.pareto import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPUTE, _STALL, _ENERGY, _GREY = "#1f5fa8", "#e07b00", "#3a7d44", "0.45"
_SIZE = (5.2, 3.3)  # small, so that its letters are still read at the width of a telephone
_DPI = 160


def drawn(study: Study, each: Slice) -> bytes:
    """The PNG of a slice."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    if each.factor.name == "mode" and study.measures("energy"):
        _plane(figure.subplots(), study, each)
    elif each.factor.field == "batch_size":
        _rates(figure, study, each)
    else:
        _times(figure.subplots(), study, each)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return png_of(figure)


def _times(axes: Axes, study: Study, each: Slice) -> None:
    """Compute and stall a minibatch by level, of the first epoch and of later ones."""
    at = np.arange(len(each.cells))
    for offset, when, alpha in ((-0.2, FIRST, 0.5), (0.2, LATER, 1.0)):
        base = np.zeros(len(at))
        for metric, colour in (("compute", _COMPUTE), ("stall", _STALL)):
            values, errors = _columns(study, each.cells, metric, when)
            label = f"{metric}, {when}"
            axes.bar(at + offset, values, 0.38, base, color=colour, alpha=alpha, label=label)
            base = base + values
        axes.errorbar(at + offset, base, errors, fmt="none", ecolor=_GREY, elinewidth=1, capsize=2)
    _levels(axes, each)
    axes.set_ylabel("a minibatch (ms)")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.grid(axis="y", color="0.92")
    axes.legend(fontsize=7, ncols=2, frameon=False, loc="upper right")


def _rates(figure: Figure, study: Study, each: Slice) -> None:
    """Samples a second by batch size, and energy a sample where there is a meter."""
    metered = study.measures("sample-energy")
    panels = figure.subplots(1, 2 if metered else 1, squeeze=False)[0]
    sizes = [cell.batch_size for cell in each.cells]
    lines = [(panels[0], "compute-rate", _COMPUTE, "of compute")]
    if each.factor.kind == "train":
        lines.append((panels[0], "rate", _STALL, "end to end"))
    if metered:
        lines.append((panels[1], "sample-energy", _ENERGY, "energy"))
    for axes, metric, colour, label in lines:
        values, errors = _columns(study, each.cells, metric, LATER)
        axes.errorbar(sizes, values, errors, color=colour, marker="o", ms=4, capsize=2, label=label)
    for axes, title in zip(panels, ("samples a second", "energy a sample (mJ)"), strict=False):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(each.factor.title)
        axes.grid(color="0.92")
    panels[0].legend(fontsize=7, frameon=False)


def _plane(axes: Axes, study: Study, each: Slice) -> None:
    """Modes by time and energy of an epoch, with their front."""
    times, time_errors = _columns(study, each.cells, "epoch", LATER)
    energies, energy_errors = _columns(study, each.cells, "energy", LATER)
    axes.errorbar(
        times, energies, energy_errors, time_errors, fmt="o", ms=4, color=_ENERGY, elinewidth=1
    )
    front = pareto_front(times, energies)
    axes.step(times[front], energies[front], where="post", color=_COMPUTE, lw=1, label="front")
    few = len(each.cells) <= 8
    for cell, time, energy in zip(each.cells, times, energies, strict=True):
        if few or study.named(cell):
            axes.annotate(
                each.factor.shown(cell.mode),
                (time, energy),
                (4, 4),
                textcoords="offset points",
                fontsize=7,
            )
    axes.set_xlabel("an epoch (s)")
    axes.set_ylabel("energy of an epoch (J)")
    axes.grid(color="0.92")
    axes.margins(0.15)
    axes.legend(fontsize=7, frameon=False)


def _columns(study: Study, cells: Sequence[Cell], metric: str, when: str) -> tuple[Any, Any]:
    """Means, and half-widths of their intervals; of a single repetition none is drawn."""
    found = [study.estimate(cell, metric, when) for cell in cells]
    errors = [0.0 if math.isnan(each.half_width) else each.half_width for each in found]
    return np.array([each.mean for each in found]), np.array(errors)


def _levels(axes: Axes, each: Slice) -> None:
    names = [each.factor.shown(each.factor.level(cell)) for cell in each.cells]
    long = max(map(len, names)) > 12
    turned: dict[str, Any] = {"rotation": 20, "ha": "right", "fontsize": 7} if long else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_xlabel(each.factor.title)
