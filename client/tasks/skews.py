"""Skews: how unlike the clients' data are, written ``KIND`` or ``KIND:DEGREE``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import IntArray
from wattfed.client.tasks.splitting import Split, _give_everyone_one, dirichlet_split


def split_samples(labels: IntArray, n_clients: int, skew: str, seed: int) -> Split:
    """Split samples over clients; each goes to exactly one, and every client gets at least one.

    Parameters
    ----------
    labels : IntArray, shape (n,)
        Label of each sample.
    n_clients : int
        Number of parts.
    skew : str
        ``dirichlet:ALPHA``, see `dirichlet_split`; ``shards:S``, see `shard_split`;
        ``quantity:SIGMA``, see `quantity_split`; or ``iid``, parts of one size and mix.
    seed : int
        Of the draw.

    Raises
    ------
    UnknownName, InvalidInput
        For a skew that is none, or if there are fewer samples than clients.
    """
    kind, _, degree = skew.partition(":")
    if kind not in _SPLITS:
        raise UnknownName("skew", kind, _SPLITS, "; such as dirichlet:0.3 or iid")
    if n_clients < 1 or n_clients > len(labels):
        raise InvalidInput(f"cannot split {len(labels)} samples over {n_clients} clients")
    try:
        number = float(degree) if kind != "iid" else 0.0
        if kind == "iid" and degree:
            raise ValueError
    except ValueError:
        shape = "iid, without a degree" if kind == "iid" else f"{kind}:NUMBER"
        raise InvalidInput(f"cannot read the skew {skew!r}; write {shape}") from None
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
    sizes = np.diff(np.linspace(0, len(labels), n_shards + 1).round().astype(np.int64))
    return _split(by_label, np.repeat(holder, sizes), n_clients)


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
