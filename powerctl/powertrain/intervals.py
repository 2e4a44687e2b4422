"""How wide the intervals of a fitted predictor are to be, as its measured modes show.

    z_i     error of a measured mode, as all other modes predict it, in standard deviations of it
    p_i     share of the board's modes to which it is the nearest that was measured
    n       how many modes that stand for as many others each say as much: 1 / sum of p_i^2
    N       how many modes the expectation, z = 1, counts as (`_EXPECTED_MODES`)
    s       scale of the standard deviations: s^2 = (N + n sum of p_i z_i^2) / (N + n)

Modes are measured where most is to be learned: at the ends of axes and near the front. There
errors are not what they are elsewhere, so each counts for the modes around it (Tibshirani et al.,
NeurIPS 2019, weigh by how likely a place is). As the scale is not known better than from N + n
modes, the interval of 90 % is that of Student's t.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from powerctl.modes import AXES, FloatArray, IntArray, ModeArrays

# Of seven tables, predicted from references of the same and of other boards and kinds, with 10,
# 20 and 50 designed and random modes: whichever is left out, the others choose 1 or 2.
_EXPECTED_MODES = 1
_FARTHEST = 3.0  # deviations at which an error counts no more: those beyond are glitches


def shown_scales(apart: FloatArray, measured: ModeArrays, modes: ModeArrays) -> FloatArray:
    """What standard deviations of time and of power are to be multiplied by, shape (2,).

    Parameters
    ----------
    apart : FloatArray, shape (2, n_rows)
        Errors of time and power in each row, in standard deviations.
    measured : ModeArrays
        Of the rows; those of one mode stand for as many modes together.
    modes : ModeArrays
        All that are to be predicted.
    """
    if not apart.size:
        return np.ones(2)
    share, of_row = _shares(measured, modes)
    size = np.bincount(of_row)
    counts = share[of_row] / size[of_row]
    alike = 1 / np.square(share).sum()
    freedom = _EXPECTED_MODES + alike
    shown = np.minimum(apart**2, _FARTHEST**2) @ counts
    squared = (_EXPECTED_MODES + alike * shown) / freedom
    return np.asarray(np.sqrt(squared) * student.ppf(0.95, freedom) / norm.ppf(0.95))


def _shares(measured: ModeArrays, modes: ModeArrays) -> tuple[FloatArray, IntArray]:
    """Share of the modes that each distinct measured mode is nearest to, and which a row is of."""
    octaves = np.log2(np.array(measured, dtype=np.float64).reshape(len(AXES), -1))
    known, of_row = np.unique(octaves, axis=1, return_inverse=True)
    every = np.log2(np.array(modes, dtype=np.float64))
    farther = np.square(known).sum(axis=0) - 2 * every.T @ known  # but for what is of the mode
    nearest = farther.argmin(axis=1)
    share = np.bincount(nearest, minlength=known.shape[1]) / len(nearest)
    return share, of_row.ravel().astype(np.int64)
