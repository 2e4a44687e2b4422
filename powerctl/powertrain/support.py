"""Rows of a table that no neighbour supports: another mode was in force than is written down.

    y     logarithms of a table's times, or of its powers
    B     polynomials of the logarithms of cores, clocks and batch size, up to degree `_DEGREE`
    r     what the robust fit of y by B leaves: weights are Cauchy's, 1 / (1 + (r / c s)^2)
    s     robust deviation of r: 1.4826 times the median of its size
    c     2.385, at which Cauchy's weights are 95 % efficient if errors are normal

A row is unsupported where its time or its power is 25 % or more off the fit (`FAR_OFF`), and five
deviations s or more (`DEVIATIONS`): the first alone is reached by steps that are real in tables
that scatter, the second alone by those of tables that hardly scatter. A few measured modes do not
determine the fit: there a predictor says what is expected of each from the others, and how
surely (`GaussianPredictor.unsupported_`), and the rule is five of its deviations.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from powerctl.measurement import MeasurementTable
from powerctl.modes import BoolArray, FloatArray

FAR_OFF = 0.25
DEVIATIONS = 5.0
_DEGREE = 4
_ROWS_PER_TERM = 3  # at least, or the degree falls: terms without rows follow single ones
_CAUCHY = 2.385
_PASSES = 30  # of weighting; the flagged rows of measured tables stay as they are from 10 on


class Screened(NamedTuple):
    """A table beside what its rows say of each other.

    Attributes
    ----------
    unsupported : BoolArray, shape (n,)
        The rows that the others do not support.
    table : MeasurementTable
        The same; in those rows, the times and powers of the fit.
    """

    unsupported: BoolArray
    table: MeasurementTable


def screened(table: MeasurementTable) -> Screened:
    """Find the rows of a table that the others do not support.

    Parameters
    ----------
    table : MeasurementTable
        Many modes of one workload on one board. Of fewer rows than a polynomial of the second
        degree needs, none is judged.
    """
    axes = [axis for axis in (*table.modes, table.batch_size) if axis is not None]
    terms = _terms([np.log(axis) for axis in axes])
    values = np.log([table.time_s, table.power_w])
    if terms is None:
        return Screened(np.zeros(len(table), dtype=bool), table)
    left = np.array([_robust_residual(terms, y) for y in values])
    scatter = np.array([[_deviation(r)] for r in left])
    is_off = (np.abs(np.expm1(left)) >= FAR_OFF) & (np.abs(left) >= DEVIATIONS * scatter)
    unsupported = is_off.any(axis=0)
    time_s, power_w = np.exp(np.where(unsupported, values - left, values))
    return Screened(unsupported, replace(table, time_s=time_s, power_w=power_w))


def _terms(axes: list[FloatArray]) -> FloatArray | None:
    """The polynomials, shape (n_rows, n_terms), of the highest degree that the rows determine."""
    powers = [_chebyshev(axis) for axis in axes]
    for degree in range(_DEGREE, 1, -1):
        of_axes = product(*(range(len(p)) for p in powers))
        chosen = [each for each in of_axes if sum(each) <= degree]
        if _ROWS_PER_TERM * len(chosen) <= len(axes[0]):
            return np.array(
                [prod(p[k] for p, k in zip(powers, each, strict=True)) for each in chosen]
            ).T
    return None


def _chebyshev(axis: FloatArray) -> FloatArray:
    """Chebyshev's polynomials over the range of an axis, shape (n_degrees, n_rows)."""
    known = np.unique(axis)
    degree = min(_DEGREE, len(known) - 1)
    if degree < 1:
        return np.ones((1, len(axis)))
    along = 2 * (axis - known[0]) / (known[-1] - known[0]) - 1
    return np.polynomial.chebyshev.chebvander(along, degree).T


def _robust_residual(terms: FloatArray, y: FloatArray) -> FloatArray:
    weights = np.ones(len(y))
    left = y
    for _ in range(_PASSES):
        fitted = np.linalg.lstsq(terms * weights[:, None], y * weights, rcond=None)[0]
        left = y - terms @ fitted
        scale = _CAUCHY * max(_deviation(left), 1e-12)
        weights = 1 / np.sqrt(1 + (left / scale) ** 2)
    return left


def _deviation(left: FloatArray) -> float:
    """The standard deviation of residuals, by their median: outliers do not count."""
    return 1.4826 * float(np.median(np.abs(left)))
