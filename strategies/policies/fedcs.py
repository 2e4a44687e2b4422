"""FedCS: as many clients as a round deadline admits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.sampling import smallest
from wattfed.strategies.policy import assign, with_reserve
from wattfed.strategies.protocol import RoundAssignment, RoundReport

_POLLED = 0.1  # of the clients: C in the paper's section IV


@dataclass(frozen=True)
class FedCS:
    """Greedy selection under a round deadline (Nishio and Yonetani, ICC 2019).

    With parallel uploads, as on a LAN, a client fits if its own download, training and upload do,
    and the greedy order is by their sum. With serial uploads, the paper's one cell, the greedy
    order is by what a client adds to the round: a longer multicast download (the slowest receiver
    sets its pace), its upload, and whatever of its training is not yet over when the uploads before
    it are. That increment is just what the deadline is checked for, so that the first client that
    does not fit ends the search: none of the others would.

    Parameters
    ----------
    deadline_s : float
        Round deadline; 0 takes the median of the clients' shortest rounds, and the reserve that
        devices keep.
    power : str
        Power policy of the selected.
    parallel_upload : bool
        Whether uploads share no bottleneck. Serial uploads take half of the offered transfer.
    poll : int
        How many random clients are asked at all; 0 takes a tenth, as in the paper (100 of 1000),
        and in a small fleet twice the clients wanted, so that there is a choice.
    overhead_s : float
        The server's own time for selection and aggregation in a round.
    """

    deadline_s: float = 0.0
    power: str = "slack"
    parallel_upload: bool = True
    poll: int = 0
    overhead_s: float = 0.0

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of up to `k` clients that meet the deadline together."""
        candidates = rng.permutation(offers.candidates(self.power))  # ties are broken by chance
        candidates = candidates[: self.poll or max(2 * k, math.ceil(_POLLED * len(candidates)))]
        if not len(candidates):
            return []
        round_s = offers.fastest_round_s(self.power)[candidates]
        finish_s = (self.deadline_s or float(np.median(round_s))) - self.overhead_s
        if self.parallel_upload:
            fastest = smallest(round_s, k)
            chosen = fastest[round_s[fastest] <= finish_s]
        else:
            half_s = offers.transfer_s[candidates] / 2
            chosen = serial_greedy(half_s, round_s - 2 * half_s, half_s, finish_s, k)
        deadline_s = self.deadline_s or with_reserve(finish_s + self.overhead_s)
        return assign(offers, candidates[chosen], self.power, deadline_s)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """FedCS decides from the offers alone."""


def serial_greedy(
    download_s: FloatArray, train_s: FloatArray, upload_s: FloatArray, finish_s: float, k: int
) -> IntArray:
    """Indices of at most `k` clients by FedCS's algorithm 3, in the order of their uploads.

    Parameters
    ----------
    download_s, train_s, upload_s : FloatArray, shape (n,)
        Of each client; downloads are one multicast, uploads follow one another.
    finish_s : float
        When the last upload must be over.
    k : int
        Most clients to take.

    Returns
    -------
    IntArray, shape (m,)
    """
    slowest_s, uploads_s = 0.0, 0.0
    left_s = upload_s.copy()  # upload of who is left; infinite for who is taken
    fixed_s = left_s + download_s
    added_s = np.empty_like(train_s)
    chosen: list[int] = []
    while len(chosen) < min(k, len(train_s)):
        np.subtract(train_s, uploads_s, out=added_s)
        np.maximum(added_s, 0.0, out=added_s)
        np.add(added_s, fixed_s, out=added_s)
        best = int(added_s.argmin())
        if slowest_s + uploads_s + added_s[best] > finish_s:
            break
        uploads_s += float(upload_s[best] + max(0.0, train_s[best] - uploads_s))
        left_s[best] = fixed_s[best] = np.inf
        if download_s[best] > slowest_s:
            slowest_s = float(download_s[best])
            fixed_s = left_s + np.maximum(download_s - slowest_s, 0.0)
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)
