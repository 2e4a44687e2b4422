"""Which modes to measure of a task in idle time: the most informative of those that may run now."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from powerctl.fulcrum.plans import SAFETY_DEVIATIONS
from powerctl.modes import FloatArray, IntArray, ModeSpace, PowerMode
from powerctl.powertrain.design import DesignedModes
from powerctl.powertrain.prediction import Prediction
from powerctl.profiler import Procedure
from wattfed.client.worker.measured_task import MeasuredTask

PROCEDURE = Procedure(
    min_minibatches=10, time_error=0.03, power_error=0.02, max_minibatches=1000, max_seconds=60.0
)
"""As long as it takes to know more of a mode than the predictor would from its neighbours."""

_LONGEST_DEVIATIONS = 2.0  # what a minibatch of unknown work may take beyond what is expected
_JUDGED = 600  # modes; a random sample of a space says as much as all


def longest_s(predicted: Prediction) -> FloatArray:
    """What a minibatch may take in each mode, as far as is known."""
    bound_s: FloatArray = predicted.time_s * np.exp(_LONGEST_DEVIATIONS * predicted.time_std)
    return bound_s


def modes_to_measure(
    task: MeasuredTask,
    space: ModeSpace,
    predicted: Prediction,
    total: int,
    power_w: float = np.inf,
    fits: Callable[[PowerMode, float], bool] | None = None,
) -> list[PowerMode]:
    """The next modes to measure, the most informative first; none if enough are measured.

    Parameters
    ----------
    task : MeasuredTask
        What is known already.
    space : ModeSpace
        To choose from.
    predicted : Prediction
        Of a minibatch in all of its modes.
    total : int
        Modes to be measured in idle time, at most.
    power_w : float
        A mode that is not sure to stay within it is left out.
    fits : callable, optional
        Whether a minibatch that may take so many seconds in a mode may run now.
    """
    table = task.read()
    done = {PowerMode(*row.mode) for row in table.rows}
    of_rounds = sum(row.origin != "idle" for row in table.rows)
    within = np.flatnonzero(predicted.power_bound_w(SAFETY_DEVIATIONS) <= power_w)
    if fits is not None:
        within = _that_fit(space, within, longest_s(predicted), fits, seed=len(done))
    if not len(within):
        return []
    design = DesignedModes(task.unfitted(), space.arrays.take(within), total + of_rounds)
    return design.choose(table.table(), done)


def _that_fit(
    space: ModeSpace,
    within: IntArray,
    longest: FloatArray,
    fits: Callable[[PowerMode, float], bool],
    seed: int,
) -> IntArray:
    """Those of a sample of modes that may run now."""
    some = np.random.default_rng(seed).permutation(within)[:_JUDGED]
    return np.array(
        [i for i in some.tolist() if fits(space.mode(i), float(longest[i]))], dtype=np.int64
    )
