"""What all our pictures share: a figure as a PNG, and readable logarithmic axes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, RED = "#1f5fa8", "#e07b00", "#c0241c"  # told apart by the colour-blind too


def png_of(figure: Figure, dpi: float | Literal["figure"] = "figure") -> bytes:
    """A figure as a PNG; by default with the dots per inch that it was made with."""
    target = BytesIO()
    figure.savefig(target, dpi=dpi, format="png")
    return target.getvalue()


def plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers: four of them or more, such as 50 100 200."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), np.arange(1, 10, 0.5)):
        ticks = np.outer(decades, steps).ravel()
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        if len(ticks) >= 4:
            break
    axis.set_ticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    axis.set_ticks([], minor=True)
