"""Summaries of updates: how long each is, and a sketch of where it points.

======  ===============================================================  ===================
symbol  meaning                                                          here
======  ===============================================================  ===================
D       change of the model's n parameters; buffers are not in it        `changes`
|D|     its L2 norm                                                      `norm`
h, u    place from 0 to 255, and sign, of each parameter: fixed draws    `_bins`
s       sum of u D over all parameters of a place                        `sketch`
======  ===============================================================  ===================

Sketches are linear, and the product of two is that of the updates on average, with a standard
deviation of at most sqrt(2 / 256) of the product of their norms (count sketch: Charikar, Chen and
Farach-Colton, ICALP 2002; as a projection: Weinberger et al., ICML 2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powerctl.modes import FloatArray

PLACES = 256  # enough to tell clients' directions apart, see the study of selection
_SEED = 256  # of places and signs: any, and always the same
_CHUNK = 1 << 16  # parameters at a time, so that little memory is needed beside the model


@dataclass(frozen=True, eq=False)
class UpdateSummary:
    """What a policy is told of an update.

    Attributes
    ----------
    norm : float
        L2 norm of the change of the parameters.
    sketch : FloatArray, shape (256,)
        Its count sketch.
    """

    norm: float
    sketch: FloatArray

    def scaled(self, factor: float) -> UpdateSummary:
        """The summary of the update times a factor."""
        return UpdateSummary(factor * self.norm, factor * self.sketch)


def summary_of(changes: Iterable[NDArray[Any]], n: int) -> UpdateSummary:
    """The summary of an update.

    Parameters
    ----------
    changes : iterable of array
        Of the parameters, in the order of the model.
    n : int
        Parameters in all of them.
    """
    bins = _bins(n)
    squares, sums, first = 0.0, np.zeros(2 * PLACES), 0
    for change in changes:
        for start in range(0, change.size, _CHUNK):
            part = change.reshape(-1)[start : start + _CHUNK].astype(np.float64)
            squares += float(np.square(part).sum())
            its = bins[first : first + len(part)]
            sums += np.bincount(its, weights=part, minlength=2 * PLACES)
            first += len(part)
    return UpdateSummary(math.sqrt(squares), sums[:PLACES] - sums[PLACES:])


@lru_cache(maxsize=2)
def _bins(n: int) -> NDArray[np.uint16]:
    """Place and sign of each of n parameters in a number: 256 more for a negative sign."""
    words = np.random.PCG64(_SEED).random_raw(-(-n // 4))  # which NumPy promises to keep
    bins: NDArray[np.uint16] = words.view(np.uint16)[:n] % np.uint16(2 * PLACES)
    return bins
