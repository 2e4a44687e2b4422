"""The cost model and the process on its residual, given measurements: one joint normal fit.

The cost model is linearised where the parameters are most probable (Gauss-Newton), so that
parameters, references' deviations and the process are one Gaussian process whose covariance is
the sum of theirs. Widths of the process adapt to the measurements by scoring their marginal
likelihood, and a measurement that none of it explains counts less (a Student-t noise).

Symbols; logarithms of times, then of powers, of all rows stand in one vector:

    y     what was measured (`measured`)
    x     the free parameters, then the factors of the references' deviations (`values`)
    m, V  prior mean and covariance of x (`mean`, `width`); V^-1 is `precision`
    f(x)  cost model and references' deviations in the rows (`base`)
    S     derivatives of f by x where it is linearised, a row for each parameter (`slopes`)
    R     covariance of process and noise (`_residual_covariance`), with R = L L^T
    T     covariance of y before measuring: R + S^T V S (`_total_covariance`)
    d     y minus what was expected of it: y - f(x) - S^T (m - x) (`_innovation`)
    w     T^-1 d (`weights`)

x is most probable where (y - f)^T R^-1 (y - f) + (x - m)^T V^-1 (x - m) is least. No matrix is
inverted but by its Cholesky factor: L^-1 "whitens", it makes rows of covariance R independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from threadpoolctl import ThreadpoolController

from powerctl.cost_model import minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, FloatArray, IntArray, ModeArrays
from powerctl.powertrain.kernels import (
    Deviations,
    Places,
    Rows,
    along_directions,
    correlations,
    covariance,
    in_plane,
    noise_covariance,
    noise_of,
    places,
    rows_of,
    variance_of,
)
from powerctl.powertrain.prior import Prior
from powerctl.powertrain.sensitivity import sensitivity

_ADAPT_FROM = 8  # rows; fewer say nothing about widths
_WIDTH_OF_WIDTHS = 1.0  # standard deviation of the logarithm of a component's variance: a factor e
# Noise is Student's t with few degrees of freedom, as some modes of every measured table are far
# off. A squared standardised residual beyond `_OUTLIER` (of a normal one 1 in 120 is) is made
# plausible by the t's variance; below it, noise stays normal, which few rows tell from a t anyway.
_FREEDOM = 3.0
_OUTLIER = 7.0
_PASSES = (
    4  # of parameters, outliers and widths in turn; three more move predictions by up to 0.4 %
)
_STEPS = 25  # of Gauss-Newton at most; one to four are usual
_LONGEST_STEP = 1.5  # of a logarithm: beyond a factor of 4.5 the linear model says little
_HALVINGS = 6  # of a step that makes things worse, before it is given up
_AT_ONCE = 2048  # modes predicted, so that their covariances stay in the cache
_ENOUGH = 0.02  # gain of twice the log posterior density below which a step is the last

Single = NDArray[np.float32]


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: on matrices of this size more do not help.

    And where training keeps the cores busy, as on a client, they wait for each other: fits took
    fifty times as long.
    """
    limit: AbstractContextManager[Any] = _blas().limit(limits=1, user_api="blas")
    return limit


class ReferenceColumns(NamedTuple):
    """Deviations that are known up to a factor: those of references.

    Attributes
    ----------
    values : FloatArray, shape (n_columns, 2, n_rows)
        Of log time and log power.
    mean, std : FloatArray, shape (n_columns,)
        What is known of the factors.
    """

    values: FloatArray
    mean: FloatArray
    std: FloatArray


class _Linear(NamedTuple):
    """The model around some parameters, at some rows; outputs are log times, then log powers."""

    rows: Rows
    base: FloatArray
    slopes: FloatArray


@dataclass(frozen=True)
class Posterior:
    """What measurements leave open of the model; made by `fit_posterior`."""

    prior: Prior
    deviations: Deviations
    log_values: FloatArray
    factors: FloatArray
    variances: FloatArray
    outliers: FloatArray
    loo_error: FloatArray
    loo_std: FloatArray
    scales: FloatArray
    _measured: _Linear
    _weights: FloatArray
    _solved: list[Single]
    _unsure: Single

    def predict(
        self, modes: ModeArrays, batch_size: ArrayLike, columns: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of log time and log power in some modes, each of shape (2, n).

        The variance is that of a new measurement: noise is in it.
        """
        sizes = np.broadcast_to(batch_size, modes.cores.shape)

        def part(start: int) -> FloatArray:
            some = slice(start, start + _AT_ONCE)
            rows = ModeArrays(*(axis[some] for axis in modes))
            return self._predict(rows, sizes[some], columns[:, :, some])

        parts = [part(start) for start in range(0, max(len(sizes), 1), _AT_ONCE)]
        mean, variance = np.concatenate(parts, axis=2)
        return mean, np.maximum(variance * self.scales[:, None] ** 2, 1e-8)

    def _predict(self, modes: ModeArrays, sizes: ArrayLike, columns: FloatArray) -> FloatArray:
        """Mean and variance of so many modes that their covariances stay in the cache."""
        new = _linear(self.prior, self.deviations, self._values, modes, sizes, columns)
        mean, variance = new.base.reshape(2, -1), variance_of(self.variances, new.rows)
        variance += noise_of(self.variances, new.rows)
        known, explained, added = self._conditioned(new.rows)
        left = new.slopes.astype(np.float32).reshape(len(new.slopes), -1) - explained
        variance -= np.einsum("onm,onm->on", known, known)
        variance += np.einsum("pn,pn->n", *[self._unsure @ left] * 2).reshape(2, -1)
        return np.array([mean + added, variance])

    def _conditioned(self, rows: Rows) -> tuple[Single, Single, Single]:
        """What the measured rows say of the process in others, in single precision.

        Its whitened covariance with them, shape (2, n, 2 n_measured); the slopes that it
        explains, (n_parameters, 2 n); and its mean, (2, n). Without the prior of the parameters
        all terms are small, so single precision is enough.
        """
        measured = self._measured.rows
        correlated = correlations(rows.places, measured.places, np.float32)
        along = along_directions(self.variances, correlated, rows, measured)
        found = in_plane(rows, {d: values @ self._solved[d] for d, values in along.items()})
        n, n_slopes = len(self._weights), len(self._measured.slopes)
        explained = found[:, :, n:-1].reshape(-1, n_slopes).T
        return found[:, :, :n], explained, found[:, :, -1]

    def joint(
        self, modes: ModeArrays, batch_size: ArrayLike, columns: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Covariance of log times, then log powers, of some modes, and variance of their noise.

        Shapes (2 n, 2 n) and (2 n,); the covariance is that of the values without noise.
        """
        new = _linear(self.prior, self.deviations, self._values, modes, batch_size, columns)
        correlated = correlations(new.rows.places, new.rows.places)
        total = covariance(self.variances, correlated, new.rows, new.rows)
        whitened, explained, _ = self._conditioned(new.rows)
        noise = noise_of(self.variances, new.rows).ravel()
        known = whitened.reshape(len(noise), whitened.shape[2])
        unsure = self._unsure @ (new.slopes.astype(np.float32) - explained)
        scale = np.repeat(self.scales, len(noise) // 2)
        left = total - known @ known.T + unsure.T @ unsure
        return left * np.outer(scale, scale), noise * scale**2

    def base(self, modes: ModeArrays, batch_size: ArrayLike) -> FloatArray:
        """Log time and log power of the fitted cost model alone, shape (2, n)."""
        hardware, signature = self.prior.model(self.log_values)
        cost = minibatch_cost(hardware, signature, *modes, batch_size)
        return np.log([cost.time_s, cost.power_w])

    def residual(self, modes: ModeArrays, batch_size: ArrayLike) -> FloatArray:
        """What the process adds to the cost model, of log time and log power, shape (2, n)."""
        hardware, signature = self.prior.model(self.log_values)
        answer = sensitivity(hardware, signature, modes, batch_size, ())
        where = places(hardware, modes, batch_size)
        rows = rows_of(where, answer, self.deviations.coupling)
        return np.asarray(self._conditioned(rows)[2], dtype=np.float64)

    @property
    def _values(self) -> FloatArray:
        return np.concatenate([self.log_values, self.factors])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was fitted, but for prior and deviations, by name; for a file."""
        rows, base, slopes = self._measured
        return {
            **{name: getattr(self, name) for name in (*_FITTED, "loo_std", "scales")},
            **{f"places_{i}": values for i, values in enumerate(rows.places.values)},
            **{f"at_{i}": at for i, at in enumerate(rows.places.at)},
            **{f"solved_{i}": values for i, values in enumerate(self._solved)},
            "directions": rows.directions,
            "shares": rows.shares,
            "base": base,
            "slopes": slopes,
        }

    @classmethod
    def of_arrays(
        cls, prior: Prior, deviations: Deviations, arrays: Mapping[str, NDArray[Any]]
    ) -> Posterior:
        """The posterior of what `arrays` gave; raises `KeyError` if something is missing."""
        axes = range(len(AXES) + 1)  # and the batch size
        where = Places(
            tuple(arrays[f"places_{i}"] for i in axes), tuple(arrays[f"at_{i}"] for i in axes)
        )
        rows = Rows(where, arrays["directions"], arrays["shares"])
        return cls(
            prior=prior,
            deviations=deviations,
            **{name: arrays[name] for name in _FITTED},
            loo_std=arrays.get("loo_std", np.full_like(arrays["loo_error"], np.nan)),
            scales=arrays.get("scales", np.ones(2)),
            _measured=_Linear(rows, arrays["base"], arrays["slopes"]),
            _solved=[arrays[f"solved_{i}"] for i in range(len(rows.directions))],
        )


_FITTED = (
    *("log_values", "factors", "variances", "outliers", "loo_error"),
    *("_weights", "_unsure"),
)


def fit_posterior(
    prior: Prior,
    deviations: Deviations,
    table: MeasurementTable,
    batch_size: ArrayLike,
    columns: ReferenceColumns,
) -> Posterior:
    """Condition the model on a table.

    Parameters
    ----------
    prior : Prior
        Of the cost model's parameters.
    deviations : Deviations
        Expected widths of the process.
    table : MeasurementTable
        Rows of one workload on one board.
    batch_size : array_like
        Of the rows.
    columns : ReferenceColumns
        Deviations of references in the rows.
    """
    measured = np.log(np.concatenate([table.time_s, table.power_w]))
    mean = np.concatenate([prior.mean, columns.mean])
    width = np.zeros((len(mean), len(mean)))
    width[: len(prior.mean), : len(prior.mean)] = prior.covariance
    width[len(prior.mean) :, len(prior.mean) :] = np.diag(columns.std**2)
    return _Search(prior, deviations, table, batch_size, columns, measured, mean, width).run()


class _Search:
    """The state of a fit: parameters, variances of the process, and extra noise of outliers."""

    def __init__(
        self,
        prior: Prior,
        deviations: Deviations,
        table: MeasurementTable,
        batch_size: ArrayLike,
        columns: ReferenceColumns,
        measured: FloatArray,
        mean: FloatArray,
        width: FloatArray,
    ) -> None:
        self.prior, self.deviations, self.columns = prior, deviations, columns
        self.table, self.batch_size = table, batch_size
        self.measured, self.mean, self.width = measured, mean, width
        self.precision = _inverse(width)
        self.lowest, self.highest = (
            np.concatenate([bound, np.full(len(columns.mean), unbounded)])
            for bound, unbounded in zip(prior.bounds(), (-np.inf, np.inf), strict=True)
        )
        self.values = np.clip(mean, self.lowest, self.highest)
        self.variances = deviations.variances
        self.extra = np.zeros(len(measured))
        where = places(prior.hardware, table.modes, batch_size)
        self.correlated = correlations(where, where)

    def run(self) -> Posterior:
        for _ in range(_PASSES if len(self.table) else 0):
            self._find_parameters()
            linear = self._linear(self.values)
            self._reweight(linear)
            if len(self.table) >= _ADAPT_FROM:
                self._adapt(linear)
        self._find_parameters()
        return self._posterior()

    def _linear(self, values: FloatArray) -> _Linear:
        return _linear(
            self.prior,
            self.deviations,
            values,
            self.table.modes,
            self.batch_size,
            self.columns.values,
        )

    def _find_parameters(self) -> None:
        """Gauss-Newton with step halving: the most probable parameters, given the variances."""
        linear = self._linear(self.values)
        for _ in range(_STEPS if len(self.table) else 0):
            residual = self._residual_covariance(linear.rows)
            lower = np.linalg.cholesky(residual)
            slopes = solve_triangular(lower, linear.slopes.T, lower=True)
            misfit = solve_triangular(lower, self.measured - linear.base, lower=True)
            gradient = slopes.T @ misfit - self.precision @ (self.values - self.mean)
            step = _step_within(
                slopes.T @ slopes + self.precision,
                gradient,
                self.lowest - self.values,
                self.highest - self.values,
            )
            step *= min(1.0, _LONGEST_STEP / max(np.abs(step).max(), _LONGEST_STEP))
            before = self._badness(misfit, self.values)
            for _ in range(_HALVINGS):
                values = self.values + step
                linear = self._linear(values)
                misfit = solve_triangular(lower, self.measured - linear.base, lower=True)
                gained = before - self._badness(misfit, values)
                if gained >= 0:
                    break
                step = step / 2
            else:
                return
            self.values = values
            if gained < _ENOUGH:
                return

    def _badness(self, misfit: FloatArray, values: FloatArray) -> float:
        away = values - self.mean
        return float(misfit @ misfit + away @ self.precision @ away)

    def _residual_covariance(self, rows: Rows) -> FloatArray:
        smooth = covariance(self.variances, self.correlated, rows, rows)
        return smooth + noise_covariance(self.variances, rows) + np.diag(self.extra)

    def _total_covariance(self, linear: _Linear) -> FloatArray:
        return np.asarray(
            self._residual_covariance(linear.rows) + linear.slopes.T @ self.width @ linear.slopes
        )

    def _of_mode(self) -> IntArray:
        """Which mode each row is of, as a number."""
        modes = np.array(self.table.modes).reshape(len(AXES), len(self.table))
        return np.unique(modes, axis=1, return_inverse=True)[1].ravel().astype(np.int64)

    def _innovation(self, linear: _Linear) -> FloatArray:
        """What was measured against what the linearised model expects before measuring."""
        return np.asarray(self.measured - linear.base + (self.values - self.mean) @ linear.slopes)

    def _reweight(self, linear: _Linear) -> None:
        """Give outliers the noise that makes them plausible, seen from all the others."""
        inverse = _inverse(self._total_covariance(linear))
        error = inverse @ self._innovation(linear) / np.diag(inverse)
        plain = np.maximum(1 / np.diag(inverse) - self.extra, 1e-8)
        squared = error**2 / plain
        wider = plain * (_FREEDOM + squared) / (_FREEDOM + 1)
        self.extra = np.where(squared > _OUTLIER, wider - plain, 0.0)

    def _adapt(self, linear: _Linear) -> None:
        """A step of Fisher scoring towards the variances of most posterior density."""
        expected = self.deviations.variances
        live = np.flatnonzero(expected)
        inverse = _inverse(self._total_covariance(linear))
        weights = inverse @ self._innovation(linear)
        whitened = []
        gradient = -np.log(self.variances[live] / expected[live]) / _WIDTH_OF_WIDTHS**2
        for i, k in enumerate(live):
            only = np.where(np.arange(len(expected)) == k, self.variances, 0.0)
            part = covariance(only, self.correlated, linear.rows, linear.rows)
            part += noise_covariance(only, linear.rows)
            whitened.append(inverse @ part)
            gradient[i] += 0.5 * (weights @ part @ weights - np.trace(whitened[-1]))
        fisher = 0.5 * np.array([[np.vdot(a, b.T) for b in whitened] for a in whitened])
        fisher += np.eye(len(live)) / _WIDTH_OF_WIDTHS**2
        step = np.clip(np.linalg.solve(fisher, gradient), -1, 1)
        self.variances = self.variances.copy()
        self.variances[live] *= np.exp(step)

    def _posterior(self) -> Posterior:
        linear = self._linear(self.values)
        inverse = _inverse(self._total_covariance(linear))
        weights = inverse @ self._innovation(linear)
        whitening = _whitening(self._residual_covariance(linear.rows))
        slopes = whitening @ linear.slopes.T
        unsure = _whitening(self.precision + slopes.T @ slopes)  # of the parameters, measured
        solved = np.hstack([whitening.T, whitening.T @ slopes, weights[:, None]])
        n = len(self.prior.mean)
        loo_error, loo_std = _left_out(inverse, weights, self.extra, self._of_mode())
        return Posterior(
            prior=self.prior,
            deviations=self.deviations,
            log_values=self.values[:n],
            factors=self.values[n:],
            variances=self.variances,
            outliers=self.extra,
            loo_error=loo_error,
            loo_std=loo_std,
            scales=np.ones(2),
            _measured=linear,
            _weights=weights,
            _solved=_per_direction(linear.rows, solved),
            _unsure=unsure.astype(np.float32),
        )


def _step_within(
    curvature: FloatArray, gradient: FloatArray, lowest: FloatArray, highest: FloatArray
) -> FloatArray:
    """The Newton step, with those parameters held at their bounds that it would carry beyond.

    The others are solved for again, given the held ones: to clip a step that was solved for all
    of them together leads where nothing is gained.
    """
    step = np.zeros_like(gradient)
    held = np.zeros(len(gradient), dtype=bool)
    while not held.all():
        free = ~held
        pull = gradient[free] - curvature[np.ix_(free, held)] @ step[held]
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], pull)
        beyond = free & ((step < lowest) | (step > highest))
        if not beyond.any():
            break
        step[beyond] = np.clip(step, lowest, highest)[beyond]
        held |= beyond
    return step


def _left_out(
    inverse: FloatArray, weights: FloatArray, extra: FloatArray, of_mode: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Errors in each row as the rows of all other modes predict it, and how sure they are of it.

    Shape (2, n) each. The deviation is of a measurement that is no outlier.
    """
    error, variance = np.empty_like(weights), np.empty_like(weights)
    for mode in range(of_mode.max(initial=-1) + 1):
        rows = np.flatnonzero(of_mode == mode)
        both = np.concatenate([rows, len(of_mode) + rows])
        own = _inverse(inverse[np.ix_(both, both)])
        error[both] = own @ weights[both]
        variance[both] = np.diag(own) - extra[both]
    return error.reshape(2, -1), np.sqrt(np.maximum(variance, 1e-8)).reshape(2, -1)


def _per_direction(rows: Rows, values: FloatArray) -> list[Single]:
    """Values per measured log time and log power, as values per direction of a measured row."""
    both = values.reshape(2, len(values) // 2, values.shape[1])
    return [
        np.einsum("on,onm->nm", direction, both).astype(np.float32) for direction in rows.directions
    ]


def _whitening(covariance: FloatArray) -> FloatArray:
    """The inverse of a lower Cholesky factor: it makes rows of such a covariance independent.

    Its transpose times itself is the matrix's inverse.
    """
    lower = np.linalg.cholesky(covariance)
    if not len(lower):
        return np.asarray(lower)
    return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True))


def _inverse(covariance: FloatArray) -> FloatArray:
    whitening = _whitening(covariance)
    return whitening.T @ whitening


def _linear(
    prior: Prior,
    deviations: Deviations,
    values: FloatArray,
    modes: ModeArrays,
    batch_size: ArrayLike,
    columns: FloatArray,
) -> _Linear:
    n = len(prior.mean)
    hardware, signature = prior.model(values[:n])
    answer = sensitivity(hardware, signature, modes, batch_size, prior.names)
    where = places(hardware, modes, batch_size)
    base = np.array([answer.log_time, answer.log_power]) + np.tensordot(values[n:], columns, 1)
    slopes = np.concatenate(
        [
            np.hstack([answer.time_slopes, answer.power_slopes]),
            columns.reshape(len(columns), base.size),
        ]
    )
    return _Linear(rows_of(where, answer, deviations.coupling), base.ravel(), slopes)
