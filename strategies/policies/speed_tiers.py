"""Tiers of clients that are about equally fast."""

from __future__ import annotations

import numpy as np

from powerctl.modes import FloatArray, IntArray


def tiers_that_fill(n_clients: int, k: int, wanted: int) -> int:
    """How many tiers to make, at most as wanted, so that each has k clients to select."""
    return max(1, min(wanted, n_clients // k))


def speed_tiers(round_s: FloatArray, n_tiers: int) -> IntArray:
    """The tier of each client, 0 the fastest; tiers differ in size by at most one.

    Parameters
    ----------
    round_s : FloatArray, shape (n,)
        Duration of each client's round.
    n_tiers : int
        With fewer clients than tiers, some tiers are empty.

    References
    ----------
    Chai et al., TiFL, HPDC 2020, section 4.2 (there from five profiling rounds; here the offers
    predict the durations, so that no round is spent on it).
    """
    tier = np.empty(len(round_s), dtype=np.int64)
    for number, members in enumerate(tier_members(round_s, n_tiers)):
        tier[members] = number
    return tier


def tier_members(round_s: FloatArray, n_tiers: int) -> list[IntArray]:
    """The indices of the clients of each tier, in no particular order; see `speed_tiers`."""
    n = len(round_s)
    cuts = np.array([-(-n * number // n_tiers) for number in range(1, n_tiers)], dtype=np.int64)
    inner = cuts[(cuts > 0) & (cuts < n)]
    order = np.argpartition(round_s, inner) if len(inner) else np.arange(n)
    return np.split(order, cuts)
