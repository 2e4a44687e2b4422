"""Making references of tables: the cost model fitted, and how each mode deviates from it."""

from __future__ import annotations

import numpy as np

from powerctl.boards import Board
from powerctl.measurement import MeasurementTable
from powerctl.modes import FloatArray
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.kernels import COMPONENTS, Deviations
from powerctl.powertrain.posterior import Posterior
from powerctl.powertrain.reference import Reference, Residual

_ROWS = 350  # of a larger table, so many random rows determine the fit as well
# Modes that take so much longer or shorter than their neighbours (of the logarithm) had other
# clocks in force than were asked for, and will have them again; smaller ones do not repeat.
_SPIKE = 0.15


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

    Parameters
    ----------
    table : MeasurementTable
        Many modes of one workload; with several batch sizes in each, if it names them.
    board : Board
        Where it was measured.
    name, kind, source : str
        Of the reference; the kind is ``"train"`` or ``"infer"``.
    batch_size : int
        Samples of a minibatch where the table does not say.
    random_state : int
        Chooses the rows that are fitted of a large table.
    """
    some = np.sort(np.random.default_rng(random_state).permutation(len(table))[:_ROWS])
    predictor = GaussianPredictor(
        board.name, l4t=board.l4t, kind=kind, batch_size=batch_size, references=()
    ).fit(table.take(some))
    posterior = predictor.posterior_
    sizes = np.full(len(table), batch_size) if table.batch_size is None else table.batch_size
    base = posterior.base(table.modes, sizes)
    errors = 100 * np.abs(np.expm1(base - np.log([table.time_s, table.power_w]))).mean(axis=1)
    hardware, signature = posterior.prior.model(posterior.log_values)
    widths = dict(zip(COMPONENTS, np.sqrt(posterior.variances).tolist(), strict=True))
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
        deviations=Deviations(**widths),
        residual=_residual(posterior, board, table, sizes.astype(np.float64), base),
    )


def _residual(
    posterior: Posterior,
    board: Board,
    table: MeasurementTable,
    sizes: FloatArray,
    base: FloatArray,
) -> Residual:
    """What the process says of every mode, and the single rows that stand out from that."""
    known = np.unique(sizes)
    smooth = np.array([posterior.residual(board.space.arrays, size) for size in known])
    at, of_size = board.space.indices(table.modes), np.searchsorted(known, sizes)
    left = np.log([table.time_s, table.power_w]) - base
    left -= np.moveaxis(smooth[of_size, :, at], 0, -1)
    rare = (np.abs(left[0]) > _SPIKE) & (at >= 0)
    spikes = np.zeros_like(smooth)
    spikes[of_size[rare], :, at[rare]] = left[:, rare].T
    return Residual(board.l4t, known.astype(np.int64), smooth, spikes)
