"""Pictures of runs: the target metric over the fleet's time and over its energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from powerctl.durable import write_output
from powerctl.figures import png_of
from wattfed.server.run.history import RoundRow


def plot_target(runs: Mapping[str, Sequence[RoundRow]], workload: str, path: Path) -> None:
    """Write a PNG with two panels, a line per run; the title names the charged workload."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    axes = (
        ("time (s)", "clock_s", 1.0),
        ("energy (kJ)", "total_energy_j", 1e3),
    )
    for panel, (name, column, unit) in zip(panels, axes, strict=True):
        for run, rows in runs.items():
            evaluated = [row for row in rows if row.value is not None]
            spent = [getattr(row, column) / unit for row in evaluated]
            panel.plot(spent, [row.value for row in evaluated], marker=".", label=run)
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    name = next(iter(runs.values()))[-1].target.name
    panels[0].set_ylabel(f"test {name}", parse_math=False)
    panels[0].legend()
    figure.suptitle(f"simulated fleet on its virtual clock, charged as {workload}", fontsize=10)
    write_output(path, png_of(figure, dpi=120))
