"""The predictor that powerctl uses: the cost model, what references know, and a Gaussian process.

    log time, log power = cost model(parameters) + references' deviations + process + noise

Parameters start from those of reference workloads, or from generic ones; the board brings its own
constants. All of it is one Gaussian posterior, so each prediction has a standard deviation. The
symbols are those of `powerctl.powertrain.posterior`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from powerctl.boards import load_board
from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray, IntArray, ModeArrays
from powerctl.powertrain.intervals import shown_scales
from powerctl.powertrain.kernels import COMPONENTS, NOISES, Deviations
from powerctl.powertrain.posterior import (
    ReferenceColumns,
    fit_posterior,
    one_blas_thread,
)
from powerctl.powertrain.prediction import Prediction
from powerctl.powertrain.prior import prior_for
from powerctl.powertrain.reference import Reference, known_references
from powerctl.powertrain.saved import (
    Parameters,
    SavedPredictor,
    damaged,
    read_predictor,
    write_predictor,
)
from powerctl.powertrain.support import DEVIATIONS

_LOG = logging.getLogger("powerctl")

# Mean and standard deviation of the factors by which references' deviations in time and power are
# shared: smooth ones, and single modes that stand out.
_SHARED = ((0.5, 0.5), (0.5, 0.5), (0.7, 0.3), (0.45, 0.3))
# Times the widths of deviations, without a reference alike.
_UNKNOWN = {"time": 2.0, "power": 2.0, **dict.fromkeys(NOISES, 1.3)}


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
    expected : Signature, optional
        What the workload is estimated to need, from its counts (`powerctl.pagoda.estimate`).

    Attributes
    ----------
    board_ : Board
    table_ : MeasurementTable
        What it learned from.
    posterior_ : Posterior

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
        expected: Signature | None = None,
    ) -> None:
        self.board = board
        self.l4t = l4t
        self.kind = kind
        self.batch_size = batch_size
        self.references = references
        self.expected = expected

    def fit(self, table: MeasurementTable) -> GaussianPredictor:
        """Learn from measured modes; none leaves what the references say.

        Parameters
        ----------
        table : MeasurementTable
            Of the workload on the board.
        """
        _check(table)
        self._begin(table)
        sizes = self._sizes(table.batch_size, len(table))
        prior = prior_for(self.board_, self.kind, self.batched_, self.references_)
        if self.expected is not None:
            prior = prior.updated(self.expected, self.batch_size)
        mean, std = _factors(len(self._alike()))
        columns = ReferenceColumns(self._columns(table.modes, sizes), mean, std)
        known = any(self._is_alike(reference) for reference in self.references_)
        deviations = _expected(self.references_, known, self.batched_)
        with one_blas_thread():
            fitted = fit_posterior(prior, deviations, table, sizes, columns)
            apart = fitted.loo_error / fitted.loo_std
            scales = shown_scales(apart, table.modes, self.board_.space.arrays)
        self.posterior_ = replace(fitted, scales=scales)
        return self

    def _begin(self, table: MeasurementTable) -> None:
        """All that is known before a fit."""
        if self.kind not in ("train", "infer"):
            raise InvalidInput(f"kind is 'train' or 'infer', not {self.kind!r}")
        self.board_ = load_board(self.board, self.l4t)
        self.references_ = self._references()
        self.batched_ = table.batch_size is not None
        self.table_ = table

    @property
    def loo_error_pct_(self) -> tuple[float, float]:
        """Mean absolute error of time and of power in a measured mode, predicted from the others.

        NaN without measurements.
        """
        if not len(self.table_):
            return math.nan, math.nan
        time, power = 100 * np.abs(np.expm1(self.posterior_.loo_error)).mean(axis=1)
        return float(time), float(power)

    @property
    def unsupported_(self) -> IntArray:
        """Measured rows that all others do not support; see `powerctl.powertrain.support`."""
        fitted = self.posterior_
        far = np.abs(fitted.loo_error) >= DEVIATIONS * fitted.loo_std
        return np.flatnonzero(far.any(axis=0)).astype(np.int64)

    def predict(self, modes: ModeArrays, batch_size: ArrayLike | None = None) -> Prediction:
        """Time and power of a minibatch in each mode, with standard deviations.

        Parameters
        ----------
        modes : ModeArrays
            Arrays of shape (n_modes,).
        batch_size : array_like, optional
            Broadcasts against the modes; by default the predictor's.

        Raises
        ------
        InvalidInput
            For another batch size than the only one that was measured.
        """
        check_is_fitted(self)
        sizes = self._sizes(batch_size, len(modes.cores))
        if not self.batched_ and np.any(sizes != self.batch_size):
            raise InvalidInput(
                f"only batch size {self.batch_size} was measured: to predict others, measure two "
                "or more"
            )
        columns = self._columns(modes, sizes)
        with one_blas_thread():
            mean, variance = self.posterior_.predict(modes, sizes, columns)
        std = np.sqrt(variance)
        time_s, power_w = np.exp(mean)
        return Prediction(time_s, power_w, std[0], std[1])

    def save(self, path: str | Path) -> None:
        """Write the fitted predictor, for `load_predictor`."""
        check_is_fitted(self)
        kind: Any = self.kind
        parameters = Parameters(self.board, self.l4t, kind, self.batch_size, self.expected)
        write_predictor(
            SavedPredictor(parameters, self.references_, self.table_, self.posterior_), path
        )

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
        if isinstance(self.references, str):
            raise InvalidInput(f"references are a sequence: write [{self.references!r}]")
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
        """A batch size per row; without one, the predictor's."""
        given = self.batch_size if batch_size is None else batch_size
        sizes = np.broadcast_to(np.asarray(given, dtype=np.float64), (n,))
        if not np.all(sizes > 0):
            raise InvalidInput(f"batch sizes must be positive, not {np.min(sizes):g}")
        return sizes


def load_predictor(path: str | Path) -> GaussianPredictor:
    """Read a predictor that `GaussianPredictor.save` wrote, as it was.

    A file of version 1, which does not keep what was fitted, is fitted again, and the log says so.

    Raises
    ------
    InvalidInput
        If the file cannot be read, is no predictor, is damaged, or of a newer version.
    """
    saved = read_predictor(path)
    with damaged(path):
        predictor = GaussianPredictor(**vars(saved.parameters), references=saved.references)
        if saved.posterior is None:
            predictor.fit(saved.table)
        else:
            predictor._begin(saved.table)
            predictor.posterior_ = saved.posterior
        predictor.predict(predictor.board_.space.thinned(2).arrays)  # of parts that fit together
    if saved.posterior is None:
        _LOG.warning(
            "%s: of version 1, which does not keep what was fitted: it was fitted again; save it "
            "anew",
            path,
        )
    return predictor


def _factors(n_references: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the columns' factors; references share what one would say."""
    n = max(n_references, 1)
    one = np.array(_SHARED) / (n, math.sqrt(n))
    mean, std = np.tile(one, (n_references, 1)).T
    return mean, std


def _expected(references: Sequence[Reference], known: bool, batched: bool) -> Deviations:
    """Widths to expect: the root mean square of the references' and the usual ones."""
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
