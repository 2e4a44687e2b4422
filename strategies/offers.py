"""The offers of many clients as arrays: what selection policies compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray, IntArray
from powerctl.rounds import RoundOffer


@dataclass(frozen=True)
class Offers:
    """Offers of n clients, sorted by client, for the full local work of each.

    Attributes
    ----------
    client, examples, minibatches : IntArray, shape (n,)
        Client number, local examples, and minibatches of its full work.
    loss : FloatArray, shape (n,)
        Last training loss; NaN where unknown.
    time_s, energy_j : FloatArray, shape (n, f)
        Training time and energy of the full work at each point of the client's front, fastest
        first; infinite beyond the end of a shorter front.
    maxn_time_s : FloatArray, shape (n,)
        Training time of the full work at MAXN.
    idle_power_w, transfer_s, allowance_j : FloatArray, shape (n,)
        As in `RoundOffer`.
    able : BoolArray, shape (n,)
        Whether the client can take part within its limits.
    """

    client: IntArray
    examples: IntArray
    minibatches: IntArray
    loss: FloatArray
    time_s: FloatArray
    energy_j: FloatArray
    maxn_time_s: FloatArray
    idle_power_w: FloatArray
    transfer_s: FloatArray
    allowance_j: FloatArray
    able: np.ndarray

    @classmethod
    def of(cls, offers: Sequence[RoundOffer]) -> Offers:
        """The arrays of some offers; raises `InvalidInput` if a client offers twice."""
        ordered = sorted(offers, key=lambda offer: offer.client)
        clients = [offer.client for offer in ordered]
        if len(set(clients)) < len(clients):
            raise InvalidInput(f"two nodes offer as one client: {clients}; check partition-id")
        points = max((len(offer.front) for offer in ordered), default=0)
        shape = (len(ordered), max(points, 1))
        time_s, energy_j = np.full(shape, np.inf), np.full(shape, np.inf)
        for row, offer in enumerate(ordered):
            time_s[row, : len(offer.front)] = offer.minibatches * offer.front.time_s
            energy_j[row, : len(offer.front)] = offer.minibatches * offer.front.energy_j

        def column(name: str, dtype: type = float) -> np.ndarray:
            return np.array([getattr(offer, name) for offer in ordered], dtype=dtype)

        minibatches = column("minibatches", int)
        return cls(
            client=column("client", int),
            examples=column("examples", int),
            minibatches=minibatches,
            loss=column("loss"),
            time_s=time_s,
            energy_j=energy_j,
            maxn_time_s=minibatches * column("maxn_time_s"),
            idle_power_w=column("idle_power_w"),
            transfer_s=column("transfer_s"),
            allowance_j=column("allowance_j"),
            able=np.array([not offer.decline for offer in ordered], dtype=bool),
        )

    def __len__(self) -> int:
        return len(self.client)

    def fastest_round_s(self, power: str) -> FloatArray:
        """The shortest round per client, transfer included, at MAXN or within the limits."""
        train_s = self.maxn_time_s if power == "maxn" else self.time_s[:, 0]
        return self.transfer_s + train_s

    def candidates(self, power: str) -> IntArray:
        """Rows of the clients that can take part; at MAXN, which ignores limits, all of them."""
        return np.arange(len(self)) if power == "maxn" else np.flatnonzero(self.able)
