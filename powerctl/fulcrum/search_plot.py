"""A picture of a search: every measured mode in the plane of time and power, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powerctl.durable import write_output
from powerctl.figures import BLUE, ORANGE, RED, png_of
from powerctl.fulcrum.outcomes import best_choices
from powerctl.fulcrum.problems import InferAlone, Problem
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Search, Solution
from powerctl.modes import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE_BLUE = "#b4cbe4"
_ROOM = 0.12  # of what is measured, to show around it
_LABEL_PX = 18.0  # from a point to its number, at 140 dots per inch


def plot_search(
    path: Path, search: Search, solution: Solution, title: str, everything: Replay | None = None
) -> None:
    """Write a PNG of a search, each mode at the best choice that was measured in it.

    Power is that of the job that takes more; time is that of the job that should be fast, for
    inference alone the latency.

    Parameters
    ----------
    path : Path
        The file.
    search : Search
        With what it measured.
    solution : Solution
        The answer, marked with a star.
    title : str
        Who searched where.
    everything : Replay, optional
        What measuring every mode would give, drawn behind.

    Raises
    ------
    InvalidInput
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    problem = search.problem
    figure = Figure(figsize=(8, 5), dpi=140, layout="constrained")
    axes = figure.subplots()
    order = np.array(search.profiled, dtype=np.int64)
    if everything is not None and problem.choices:
        x, y, kept = _places(problem, *everything.columns(problem.jobs))
        _scatter(axes, "all modes", x[~kept], y[~kept], s=6, color="0.85", lw=0, total=len(x))
        _scatter(axes, "feasible of these", x[kept], y[kept], s=6, color=_PALE_BLUE, lw=0)
    earlier = np.setdiff1d(search.measured_modes, order)
    x, y, _ = _measured(search, earlier)
    _scatter(axes, "known before", x, y, s=20, marker="s", color="0.55")
    x, y, kept = _measured(search, order)
    broken = ~kept & np.isfinite(x)
    style: dict[str, Any] = {"s": 34, "zorder": 3}
    _scatter(
        axes, "measured, over a limit", x[broken], y[broken], marker="x", color=ORANGE, **style
    )
    _scatter(axes, "measured, feasible", x[kept], y[kept], color=BLUE, **style)
    if solution.mode is not None and not solution.predicted:
        (x0,), (y0,), _ = _measured(search, np.array([search.candidates.index(solution.mode)]))
        star = axes.scatter(x0, y0, s=230, marker="*", color=RED, edgecolor="white")
        star.set(zorder=4, label=f"answer: {solution.value:.3g} ({problem.goal})")
    _limits_and_frame(axes, problem, x, y)
    axes.set_xlabel(_time_name(problem))
    axes.set_ylabel("power of the module (W)")
    axes.set_title(f"{problem.describe()}\n{title}, {len(order)} modes measured", fontsize=10)
    axes.grid(color="0.93", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="best")
    figure.draw_without_rendering()  # so that places in pixels are known
    _number(axes, x, y)
    write_output(path, png_of(figure))


def _measured(search: Search, modes: IntArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    return _places(search.problem, search.time_s[modes], search.power_w[modes])


def _places(
    problem: Problem, time_s: FloatArray, power_w: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Milliseconds, watts, and whether all bounds hold; NaN where no choice is measured."""
    choice = best_choices(problem, time_s, power_w)
    if not len(choice) or not problem.choices:
        nowhere = np.full(len(choice), np.nan)
        return nowhere, nowhere, np.zeros(len(choice), dtype=bool)
    rows = np.arange(len(choice))
    found = problem.evaluate(time_s, power_w)
    if isinstance(problem, InferAlone):
        time = np.exp(found.loss[rows, choice])
    else:
        time = time_s[rows, np.array([jobs[0] for jobs in problem.choices])[choice]]
    return 1e3 * time, found.power_w[rows, choice], found.feasible[rows, choice]


def _time_name(problem: Problem) -> str:
    if isinstance(problem, InferAlone):
        return "latency (ms)"
    role = problem.jobs[0].role
    return f"time of a minibatch of {'training' if role == 'train' else role} (ms)"


def _scatter(
    axes: Axes, what: str, x: FloatArray, y: FloatArray, *, total: int | None = None, **style: Any
) -> None:
    if len(x):
        axes.scatter(x, y, label=f"{what}, {len(x) if total is None else total:,}", **style)


def _limits_and_frame(axes: Axes, problem: Problem, x: FloatArray, y: FloatArray) -> None:
    """Lines at the limits, and room around them and what was measured, not around all modes."""
    bounds = problem.limits
    lines: list[tuple[Callable[..., Any], Callable[..., Any], FloatArray, list[tuple[float, str]]]]
    watts = [(bounds["power_w"], "W")] if "power_w" in bounds else []
    ms = [(1e3 * bounds["latency_s"], "ms")] if isinstance(problem, InferAlone) else []
    lines = [(axes.axhline, axes.set_ylim, y, watts), (axes.axvline, axes.set_xlim, x, ms)]
    for draw, frame, values, at in lines:
        for limit, unit in at:
            style = ":" if unit == "ms" else "--"
            draw(limit, color=RED, ls=style, lw=1, label=f"limit {limit:g} {unit}")
        shown = np.array([*values[np.isfinite(values)], *(limit for limit, _ in at)])
        if len(shown):
            room = _ROOM * max(float(np.ptp(shown)), 0.05 * float(shown.max()))
            frame(float(shown.min()) - room, float(shown.max()) + room)


def _number(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    """Write the order beside the points, each where it is farthest from the rest."""
    points = axes.transData.transform(np.column_stack([x, y]))
    taken = points[np.isfinite(points).all(axis=1)]
    turns = np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.6
    ring = _LABEL_PX * np.column_stack([np.cos(turns), np.sin(turns)])
    for number, point in enumerate(points, start=1):
        if not np.isfinite(point).all():
            continue
        places = point + ring
        gaps = np.linalg.norm(places[:, None] - taken[None], axis=2).min(axis=1)
        best = places[gaps.argmax()]
        taken = np.vstack([taken, best])
        left, up = axes.transData.inverted().transform(best)
        axes.text(left, up, str(number), fontsize=8, color="0.25", ha="center", va="center")
