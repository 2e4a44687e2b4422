"""How the samples of a task are split over clients."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import IntArray


@dataclass(frozen=True)
class Split(Sequence[IntArray]):
    """Which samples each client has: ``split[client]`` are its indices, ascending.

    Two arrays, whatever the number of clients.

    Attributes
    ----------
    indices : IntArray, shape (n_samples,)
        Of all clients, one after the other.
    starts : IntArray, shape (n_clients + 1,)
        Where each client's begin; the last is the number of samples.
    """

    indices: IntArray
    starts: IntArray

    @classmethod
    def of(cls, owner: IntArray, n_clients: int) -> Split:
        """From the owner of each sample, shape (n_samples,)."""
        sizes = np.bincount(owner, minlength=n_clients)
        starts = np.concatenate(([0], np.cumsum(sizes)))
        return cls(np.argsort(owner, kind="stable"), starts)

    @property
    def sizes(self) -> IntArray:
        """Samples of each client, shape (n_clients,)."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, client):  # type: ignore[no-untyped-def]
        if not 0 <= client < len(self):
            raise IndexError(client)
        return self.indices[self.starts[client] : self.starts[client + 1]]


def dirichlet_split(labels: IntArray, n_clients: int, alpha: float, seed: int) -> Split:
    """Split samples over clients with label shares from a Dirichlet distribution.

    Each client draws its own mix of labels; a small `alpha` makes the mixes unlike (non-IID,
    Hsu et al. 2019). Every sample goes to exactly one client and every client gets at least one.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Label of each sample.
    n_clients : int
        Number of parts.
    alpha : float
        Concentration; 0.1 is very uneven, 100 nearly even.
    seed : int
        Of the draw.

    Raises
    ------
    InvalidInput
        If there are fewer samples than clients.
    """
    if n_clients < 1 or n_clients > len(labels):
        raise InvalidInput(f"cannot split {len(labels)} samples over {n_clients} clients")
    if not alpha > 0:
        raise InvalidInput(f"the Dirichlet concentration must be positive, got {alpha:g}")
    rng = np.random.default_rng((seed, n_clients))
    drawn, owners = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(n_clients, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).round().astype(np.int64)
        sizes = np.diff(cuts, prepend=0, append=len(members))
        drawn.append(members)
        owners.append(np.repeat(np.arange(n_clients), sizes))
    sample, owner = np.concatenate(drawn), np.concatenate(owners)
    _give_everyone_one(owner, n_clients)
    of_sample = np.empty(len(labels), dtype=np.int64)
    of_sample[sample] = owner
    return Split.of(of_sample, n_clients)


def _give_everyone_one(owner: IntArray, n_clients: int) -> None:
    """Clients without a sample get the last one of whoever has most, the first of them at a tie."""
    sizes = np.bincount(owner, minlength=n_clients)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return
    by_owner = np.argsort(owner, kind="stable")
    ends = np.cumsum(sizes)
    most = [(-size, client) for client, size in enumerate(sizes.tolist()) if size > 1]
    heapq.heapify(most)
    for client in empty.tolist():
        size, giver = most[0]
        ends[giver] -= 1
        owner[by_owner[ends[giver]]] = client
        heapq.heapreplace(most, (size + 1, giver))
