"""What a round costs a client that finishes by a deadline and waits for the others until it."""

from __future__ import annotations

import numpy as np

from powerctl.modes import FloatArray


def least_cost_by(
    deadline_s: float,
    round_s: FloatArray,
    energy_j: FloatArray,
    idle_power_w: FloatArray,
    transfer_s: FloatArray,
) -> FloatArray:
    """Least energy of each client to finish by a deadline and wait until then.

    Parameters
    ----------
    deadline_s : float
        When the round ends.
    round_s, energy_j : FloatArray, shape (n, c)
        Seconds of the round, transfer included, and joules of all but transfer and waiting, at
        each choice.
    idle_power_w, transfer_s : FloatArray, shape (n,)
        Power while waiting and in transfer, and the part of the round that is transfer.

    Returns
    -------
    FloatArray, shape (n,)
        Joules; infinite for who has no choice in time.
    """
    in_time = round_s <= deadline_s
    wait_s = deadline_s + transfer_s[:, None] - np.where(in_time, round_s, 0.0)
    total_j = energy_j + idle_power_w[:, None] * wait_s
    return np.asarray(np.where(in_time, total_j, np.inf).min(axis=1))


def candidate_deadlines(round_s: FloatArray, n: int) -> FloatArray:
    """Up to `n` of the distinct finite round times, thinned evenly, rising."""
    times = np.unique(round_s[np.isfinite(round_s)])
    picks = np.linspace(0, len(times) - 1, min(n, len(times)))
    return np.asarray(times[picks.round().astype(int)])
