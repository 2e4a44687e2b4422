"""Pictures of mode spaces: every mode and the front among them."""

from __future__ import annotations

from pathlib import Path

from powerctl.modes import IntArray
from powerctl.powertrain.prediction import Prediction


def plot_front(costs: Prediction, front: IntArray, cost: str, title: str, path: Path) -> None:
    """Write a PNG of all modes in the time-energy or time-power plane, with their front."""
    from matplotlib.figure import Figure

    values = costs.energy_j if cost == "energy" else costs.power_w
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(1e3 * costs.time_s, values, s=2, color="0.75", label=f"{len(values):,} modes")
    axes.plot(1e3 * costs.time_s[front], values[front], ".-", label=f"front, {len(front)} modes")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("time of a minibatch (ms)")
    axes.set_ylabel("energy of a minibatch (J)" if cost == "energy" else "module power (W)")
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.savefig(path, dpi=120)
