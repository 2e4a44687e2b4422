"""The predictor that powerctl uses: the cost model, what references know, and a Gaussian process.

    log time, log power = cost model(parameters) + references' deviations + process + noise

Parameters start from those of reference workloads, or from generic ones; the board brings its own
constants. All of it is one Gaussian posterior, so each prediction has a standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from powerctl.boards import Board, load_board
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray, ModeArrays
from powerctl.powertrain.posterior import Columns, fit_posterior, one_blas_thread
from powerctl.powertrain.prediction import Prediction
from powerctl.powertrain.prior import prior_for
from powerctl.powertrain.process import COMPONENTS, NOISES, Deviations
from powerctl.powertrain.reference import Reference, Residual, known_references

_SMOOTH, _SPIKES = (0.5, 0.5), (0.7, 0.3)  # mean and standard deviation of factors of residuals
# Times the widths of deviations, without a reference alike.
_UNKNOWN = {"time": 2.0, "power": 2.0, **dict.fromkeys(NOISES, 1.3)}
_REFERENCE_ROWS = 350
_SPIKE = 4.0  # robust standard deviations


class GaussianPredictor(BaseEstimator):  # type: ignore[misc]
    """Time and power of a workload in every mode of a board, from a few measured modes.

    Parameters
    ----------
    board : str
        Board of the catalogue.
    l4t : str, optional
        Its release.
    kind : str
        ``"train"`` or ``"infer"``.
    batch_size : int
        Samples of a minibatch, where a table does not say.
    references : sequence of Reference or str, optional
        What to start from; None takes all that are known, an empty sequence none.

    Attributes
    ----------
    board_ : Board
    table_ : MeasurementTable
        What it learned from.
    posterior_ : Posterior
    loo_error_pct_ : tuple of float
        Mean absolute error of time and of power in a measured mode, predicted from the others.

    References
    ----------
    PowerTrain (FGCS 2024) for the problem; Kennedy and O'Hagan (2001), Bayesian calibration of
    computer models, for a process on what a model leaves.
    """

    def __init__(
        self,
        board: str = "orin-agx",
        *,
        l4t: str | None = None,
        kind: str = "train",
        batch_size: int = 16,
        references: Sequence[Reference | str] | None = None,
    ) -> None:
        self.board = board
        self.l4t = l4t
        self.kind = kind
        self.batch_size = batch_size
        self.references = references

    def fit(self, table: MeasurementTable) -> GaussianPredictor:
        """Learn from measured modes; none leaves what the references say.

        Parameters
        ----------
        table : MeasurementTable
            Of the workload on the board.
        """
        _check(table)
        if self.kind not in ("train", "infer"):
            raise InvalidInput(f"kind is 'train' or 'infer', not {self.kind!r}")
        self.board_ = load_board(self.board, self.l4t)
        self.references_ = self._references()
        self.batched_ = table.batch_size is not None
        sizes = self._sizes(table.batch_size, len(table))
        alike = self._alike()
        prior = prior_for(self.board_, self.kind, self.batched_, self.references_)
        shape = _columns_shape(alike)
        columns = Columns(self._columns(table.modes, sizes), shape[:, 0], shape[:, 1])
        known = any(self._is_alike(reference) for reference in self.references_)
        deviations = _expected(self.references_, known, self.batched_)
        self.table_ = table
        with one_blas_thread():
            self.posterior_ = fit_posterior(prior, deviations, table, sizes, columns)
        error = (
            100 * np.abs(np.expm1(self.posterior_.loo_error)).mean(axis=1)
            if len(table)
            else (np.nan, np.nan)
        )
        self.loo_error_pct_ = (float(error[0]), float(error[1]))
        return self

    def predict(self, modes: ModeArrays, batch_size: ArrayLike | None = None) -> Prediction:
        """Time and power of a minibatch in each mode, with standard deviations.

        Parameters
        ----------
        modes : ModeArrays
            Arrays of shape (n_modes,).
        batch_size : array_like, optional
            Broadcasts against the modes; by default the predictor's.
        """
        check_is_fitted(self)
        sizes = self._sizes(batch_size, len(modes.cores))
        columns = self._columns(modes, sizes)
        with one_blas_thread():
            mean, variance = self.posterior_.predict(modes, sizes, columns)
        std = np.sqrt(variance)
        time_s, power_w = np.exp(mean)
        return Prediction(time_s, power_w, std[0], std[1])

    def save(self, path: str | Path) -> None:
        """Write the fitted predictor, for `powerctl.powertrain.saved.load_predictor`."""
        from powerctl.powertrain.saved import save_predictor

        check_is_fitted(self)
        save_predictor(self, path)

    def covariance(
        self, modes: ModeArrays, batch_size: ArrayLike | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Covariance of log times, then log powers, of some modes, and variance of measuring them.

        Shapes (2 n_modes, 2 n_modes) and (2 n_modes,).
        """
        check_is_fitted(self)
        sizes = self._sizes(batch_size, len(modes.cores))
        with one_blas_thread():
            return self.posterior_.joint(modes, sizes, self._columns(modes, sizes))

    def _references(self) -> list[Reference]:
        if self.references is None:
            return known_references()
        return [
            r if isinstance(r, Reference) else known_references([r])[0] for r in self.references
        ]

    def _is_alike(self, reference: Reference) -> bool:
        """Whether this workload may deviate from the cost model as a reference does."""
        return reference.board == self.board_.name and reference.batched >= self.batched_

    def _alike(self) -> list[Reference]:
        """References whose deviations are known mode by mode."""
        return [r for r in self.references_ if r.residual is not None and self._is_alike(r)]

    def _columns(self, modes: ModeArrays, sizes: FloatArray) -> FloatArray:
        """Smooth deviations and spikes of each alike reference, each of time and of power."""
        columns = []
        for reference in self._alike():
            assert reference.residual is not None
            for values in reference.residual.at(self.board_, modes, sizes):
                for output in range(2):
                    only = np.zeros_like(values)
                    only[output] = values[output]
                    columns.append(only)
        return np.array(columns).reshape(len(columns), 2, len(sizes))

    def _sizes(self, batch_size: ArrayLike | None, n: int) -> FloatArray:
        given = self.batch_size if batch_size is None else batch_size
        sizes = np.broadcast_to(np.asarray(given, dtype=np.float64), (n,))
        if not np.all(sizes > 0):
            raise InvalidInput(f"batch sizes must be positive, not {np.min(sizes):g}")
        return sizes


def build_reference(
    table: MeasurementTable,
    board: Board,
    *,
    name: str,
    kind: str,
    batch_size: int = 16,
    source: str = "",
    random_state: int = 0,
) -> Reference:
    """Make a reference of a table.

    The cost model and the widths of what it leaves are fitted to at most `_REFERENCE_ROWS` rows.
    """
    rng = np.random.default_rng(random_state)
    some = np.sort(rng.permutation(len(table))[:_REFERENCE_ROWS])
    predictor = GaussianPredictor(
        board.name, l4t=board.l4t, kind=kind, batch_size=batch_size, references=()
    ).fit(table.take(some))
    posterior = predictor.posterior_
    hardware, signature = posterior.prior.model(posterior.log_values)
    sizes = np.unique(predictor._sizes(table.batch_size, len(table)))
    smooth = np.array([posterior.residual(board.space.arrays, size) for size in sizes])
    rows = predictor._sizes(table.batch_size, len(table))
    measured = np.log([table.time_s, table.power_w])
    base = posterior.base(table.modes, rows)
    at = board.space.indices(table.modes)
    of_size = np.searchsorted(sizes, rows)
    left = measured - base - np.moveaxis(smooth[of_size, :, at], 0, -1)
    spikes = np.zeros_like(smooth)
    for output in range(2):
        scatter = 1.4826 * np.median(np.abs(left[output]))
        rare = (np.abs(left[output]) > _SPIKE * scatter) & (at >= 0)
        spikes[of_size[rare], output, at[rare]] = left[output, rare]
    errors = 100 * np.abs(np.expm1(base - measured)).mean(axis=1)
    widths = np.sqrt(posterior.variances)
    return Reference(
        name=name,
        board=board.name,
        kind=kind,
        batch_size=batch_size,
        batched=table.batch_size is not None,
        source=source,
        n_rows=len(table),
        time_error_pct=float(errors[0]),
        power_error_pct=float(errors[1]),
        signature=signature,
        hardware=hardware,
        deviations=Deviations(**dict(zip(COMPONENTS, widths.tolist(), strict=True))),
        residual=Residual(board.l4t, sizes.astype(np.int64), smooth, spikes),
    )


def _columns_shape(alike: Sequence[Reference]) -> FloatArray:
    """Mean and standard deviation of the factors: several references share what one would say."""
    n = max(len(alike), 1)
    one = [(m / n, s / np.sqrt(n)) for m, s in (_SMOOTH, _SMOOTH, _SPIKES, _SPIKES)]
    return np.array(one * len(alike), dtype=np.float64).reshape(-1, 2)


def _expected(references: Sequence[Reference], known: bool, batched: bool) -> Deviations:
    """Widths to expect: the geometric mean of the references' and the usual ones."""
    usual = Deviations()
    every = [usual, *(r.deviations for r in references)]
    widths = {
        name: float(np.sqrt(np.mean([getattr(d, name) ** 2 for d in every]))) for name in COMPONENTS
    }
    for name in ("flop", "activity"):
        widths[name] = getattr(usual, name) if batched else 0.0
    if not known:
        for name in COMPONENTS:
            widths[name] *= _UNKNOWN.get(name, 1.0)
    return Deviations(**widths)


def _check(table: MeasurementTable) -> None:
    both = np.array([table.time_s, table.power_w])
    if not np.all(np.isfinite(both) & (both > 0)):
        raise InvalidInput(f"{table.source}: times and powers must be positive numbers")
