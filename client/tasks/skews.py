"""How samples are split over clients, by skews, written ``KIND`` or ``KIND:DEGREE``."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import IntArray


@dataclass(frozen=True)
class Split:
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

    def __getitem__(self, client: int) -> IntArray:
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
    """
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
    owner = np.concatenate(owners)
    _give_everyone_one(owner, n_clients)
    return _split(np.concatenate(drawn), owner, n_clients)


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


def split_samples(
    labels: IntArray, n_clients: int, skew: str, seed: int, groups: IntArray | None = None
) -> Split:
    """Split samples over clients; each goes to exactly one, and every client gets at least one.

    Parameters
    ----------
    labels : IntArray, shape (n,)
        Label of each sample.
    n_clients : int
        Number of parts.
    skew : str
        ``dirichlet:ALPHA``, see `dirichlet_split`; ``shards:S``, see `shard_split`;
        ``quantity:SIGMA``, see `quantity_split`; ``iid``, parts of one size and mix; or
        ``natural``, see `natural_split`.
    seed : int
        Of the draw.
    groups : IntArray, shape (n,), optional
        The natural client of each sample, of a task that has such.

    Raises
    ------
    UnknownName, InvalidInput
        For a skew that is none, or if there are fewer samples than clients.
    """
    kind, _, degree = skew.partition(":")
    if kind not in (*_SPLITS, "natural"):
        raise UnknownName("skew", kind, (*_SPLITS, "natural"), "; such as dirichlet:0.3 or iid")
    if n_clients < 1 or n_clients > len(labels):
        raise InvalidInput(f"cannot split {len(labels)} samples over {n_clients} clients")
    plain = kind in ("iid", "natural")
    try:
        number = 0.0 if plain else float(degree)
        if plain and degree:
            raise ValueError
    except ValueError:
        shape = f"{kind}, without a degree" if plain else f"{kind}:NUMBER"
        raise InvalidInput(f"cannot read the skew {skew!r}; write {shape}") from None
    if kind == "natural":
        if groups is None:
            raise InvalidInput("this task has no natural clients; write a skew like dirichlet:0.3")
        return natural_split(groups, n_clients, seed)
    return _SPLITS[kind](labels, n_clients, number, seed)


def shard_split(labels: IntArray, n_clients: int, shards: float, seed: int) -> Split:
    """So many shards to each client, of samples sorted by label (McMahan et al., AISTATS 2017).

    All have about equally many samples, of few labels: about as many as they have shards.
    """
    each = int(shards)
    if each != shards or each < 1 or each * n_clients > len(labels):
        raise InvalidInput(
            f"shards must be a whole number from 1 to {len(labels) // n_clients}, the samples "
            f"that there are for a client; got {shards:g}"
        )
    rng = np.random.default_rng((seed, n_clients))
    mixed = rng.permutation(len(labels))
    by_label = mixed[np.argsort(labels[mixed], kind="stable")]
    n_shards = each * n_clients
    holder = np.repeat(np.arange(n_clients), each)[rng.permutation(n_shards)]
    edges: IntArray = np.linspace(0, len(labels), n_shards + 1).round().astype(np.int64)
    return _split(by_label, np.repeat(holder, np.diff(edges)), n_clients)


def quantity_split(labels: IntArray, n_clients: int, sigma: float, seed: int) -> Split:
    """Parts of one mix, with lognormal sizes: `sigma` is their logarithm's standard deviation."""
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise InvalidInput(f"the spread of quantities cannot be negative, got {sigma:g}")
    rng = np.random.default_rng((seed, n_clients))
    order = rng.permutation(len(labels))
    shares = np.cumsum(np.exp(sigma * rng.standard_normal(n_clients)))
    cuts = (shares[:-1] / shares[-1] * len(labels)).round().astype(np.int64)
    sizes = np.diff(cuts, prepend=0, append=len(labels))
    owner = np.repeat(np.arange(n_clients), sizes)
    _give_everyone_one(owner, n_clients)
    return _split(order, owner, n_clients)


def natural_split(groups: IntArray, n_clients: int, seed: int) -> Split:
    """Whole groups to clients, by chance, of about one size; a group that many share is divided.

    Parameters
    ----------
    groups : IntArray, shape (n,)
        The natural client of each sample.
    n_clients : int
        Number of parts. Where they are fewer than the groups, each client has some; where they are
        more, the largest groups are divided, in the order of their samples.
    seed : int
        Of which client has which.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(groups, kind="stable")
    pieces = np.ones(len(sizes), dtype=np.int64)
    heap = [(-size, group) for group, size in enumerate(sizes.tolist())]
    heapq.heapify(heap)
    while pieces.sum() < n_clients:  # the group of the largest pieces gets one more
        _, group = heap[0]
        pieces[group] += 1
        heapq.heapreplace(heap, (-sizes[group] / pieces[group], group))
    parts = zip(sizes.tolist(), pieces.tolist(), strict=True)
    held = np.array([(size + i) // n for size, n in parts for i in range(n)])
    rank = np.empty(len(held), dtype=np.int64)
    loads = [(0, place) for place in range(n_clients)]
    for piece in np.argsort(-held, kind="stable").tolist():  # the largest to who has least
        load, rank[piece] = loads[0]
        heapq.heapreplace(loads, (load + int(held[piece]), int(rank[piece])))
    client = np.random.default_rng((seed, n_clients)).permutation(n_clients)
    return _split(order, np.repeat(client[rank], held), n_clients)


def _split(samples: IntArray, owner: IntArray, n_clients: int) -> Split:
    """From samples in some order, and who owns each."""
    of_sample = np.empty_like(owner)
    of_sample[samples] = owner
    return Split.of(of_sample, n_clients)


_SPLITS: dict[str, Callable[[IntArray, int, float, int], Split]] = {
    "dirichlet": dirichlet_split,
    "shards": shard_split,
    "quantity": quantity_split,
    "iid": lambda labels, n_clients, _, seed: quantity_split(labels, n_clients, 0.0, seed),
}
