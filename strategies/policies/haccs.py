"""HACCS: the fastest clients of clusters with different data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray
from wattfed.strategies.offers import Offers
from wattfed.strategies.policies.experience import Experience
from wattfed.strategies.policies.sampling import smallest
from wattfed.strategies.policy import assign
from wattfed.strategies.protocol import RoundAssignment, RoundReport
from wattfed.strategies.state import Memory


@dataclass
class HACCS(Memory):
    """Clusters by latency and loss, the fastest in each (Wolfrath et al., HACCS, IPDPS 2022).

    Clients are clustered once on their label histograms, by Hellinger's distance; who comes later
    joins the nearest cluster. A cluster's weight is rho tau + (1 - rho) loss / sum of losses, with
    tau = 1 - latency / highest latency of any cluster. `k` clusters are drawn with replacement by
    weight, and each draw takes the cluster's fastest client that is not taken yet.

    The paper's density clustering is replaced by average linkage, which needs no density and
    leaves nobody out as noise. Histograms carry the noise that the clients put on them. A client
    that tells no labels is a cluster of its own. Draws of a cluster that is used up are drawn again
    among the others, so that neither clients are missing nor the loop runs for ever; clusters of
    which no loss is known have the highest that is.

    Parameters
    ----------
    power : str
        Power policy of the selected.
    rho : float
        Weight of latency against loss.
    apart : float
        Hellinger's distance between clusters, 0 to 1.
    most_clusters : int
        At most so many.
    """

    remembers = ("_known", "_centres", "_cluster")
    power: str = "slack"
    rho: float = 0.5
    apart: float = 0.3
    most_clusters: int = 50
    _known: Experience = field(default_factory=Experience, init=False, repr=False)
    _centres: FloatArray = field(default_factory=lambda: np.zeros((0, 0)), init=False, repr=False)
    _cluster: IntArray = field(default_factory=lambda: np.arange(0), init=False, repr=False)

    def select(
        self, offers: Offers, k: int, server_round: int, rng: Generator
    ) -> list[RoundAssignment]:
        """Assignments of `k` clients from clusters drawn by weight."""
        self._known.know(offers.client)
        rows = offers.candidates(self.power)
        if not len(rows):
            return []
        cluster = self._clusters(offers, rows, rng)
        round_s = offers.fastest_round_s(self.power)[rows]
        loss = self._known.loss_or_highest(offers.client[rows])
        weight = cluster_weights(cluster, round_s, loss, self.rho)
        draws = draw_clusters(weight, np.bincount(cluster, minlength=len(weight)), k, rng)
        chosen = _fastest_of(cluster, round_s, draws)
        return assign(offers, rows[chosen], self.power, np.inf)

    def observe(self, reports: Sequence[RoundReport]) -> None:
        """Remember the losses that the clients report."""
        self._known.record(reports, server_round=0)

    def _clusters(self, offers: Offers, rows: IntArray, rng: Generator) -> IntArray:
        """Cluster of each row, numbered without gaps by those who tell labels first."""
        client = offers.client[rows]
        extra = int(client.max()) + 1 - len(self._cluster)
        if extra > 0:
            self._cluster = np.pad(self._cluster, (0, extra), constant_values=-1)
        cluster = self._cluster[client]
        fresh = np.flatnonzero(cluster < 0)
        told = fresh[(offers.label_counts[rows[fresh]] > 0).any(axis=1)]
        if len(told):
            roots = root_shares(offers.label_counts[rows[told]])
            if not len(self._centres):
                self._centres = cluster_centres(roots, self.apart, self.most_clusters, rng)
            labels = self._centres.shape[1]
            roots = np.pad(roots, ((0, 0), (0, max(0, labels - roots.shape[1]))))[:, :labels]
            cluster[told] = self._cluster[client[told]] = nearest_centre(roots, self._centres)
        alone = np.flatnonzero(cluster < 0)
        cluster[alone] = len(self._centres) + np.arange(len(alone))
        return cluster


def cluster_weights(
    cluster: IntArray, round_s: FloatArray, loss: FloatArray, rho: float
) -> FloatArray:
    """The chance of each cluster to be drawn, up to a factor; see `HACCS`. Empty ones have none."""
    size = np.bincount(cluster)
    latency_s = np.bincount(cluster, weights=round_s) / np.maximum(size, 1)
    mean_loss = np.bincount(cluster, weights=loss) / np.maximum(size, 1)
    tau = 1 - latency_s / max(float(latency_s.max()), 1e-12)
    weight = rho * tau + (1 - rho) * mean_loss / max(float(mean_loss.sum()), 1e-12)
    weight = np.where(size > 0, weight, 0.0)
    return np.asarray(weight if weight.sum() > 0 else (size > 0).astype(float))


def draw_clusters(weight: FloatArray, size: IntArray, k: int, rng: Generator) -> IntArray:
    """How often each cluster is drawn in `k` draws by weight, never more often than its size."""
    draws = np.zeros_like(size)
    missing = min(k, int(size.sum()))
    while missing > 0:
        chance = np.where(draws < size, weight, 0.0)
        if not chance.sum():
            chance = (draws < size).astype(float)
        edges = np.cumsum(chance)
        hits = np.searchsorted(edges, rng.random(missing) * edges[-1], side="right")
        drawn = np.bincount(np.minimum(hits, len(size) - 1), minlength=len(size))
        draws = np.minimum(draws + drawn, size)
        missing = min(k, int(size.sum())) - int(draws.sum())
    return draws


def _fastest_of(cluster: IntArray, round_s: FloatArray, draws: IntArray) -> IntArray:
    """Indices of the fastest clients of each cluster, as many as it was drawn."""
    only = np.flatnonzero(draws[cluster] > 0)
    order = only[np.argsort(cluster[only], kind="stable")]
    ends = np.searchsorted(cluster[order], np.flatnonzero(draws), side="right")
    groups = np.split(order, ends[:-1])
    wanted = draws[draws > 0]
    picks = [g[smallest(round_s[g], int(n))] for g, n in zip(groups, wanted, strict=True)]
    return np.concatenate(picks)


_SAMPLE = 1000  # clients that are clustered; all others join the nearest cluster


def root_shares(label_counts: FloatArray) -> FloatArray:
    """Square roots of label shares: their Euclidean distance over sqrt 2 is Hellinger's distance.

    Parameters
    ----------
    label_counts : FloatArray, shape (n, labels)
        Noise for privacy may have made some of them negative.
    """
    counts = np.maximum(label_counts, 0.0)
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.sqrt(counts / total))


def cluster_centres(roots: FloatArray, apart: float, most: int, rng: Generator) -> FloatArray:
    """Centres of clusters of label distributions.

    Average linkage on Hellinger's distance, of a sample of the clients where there are many.

    Parameters
    ----------
    roots : FloatArray, shape (n, labels)
        As `root_shares` gives.
    apart : float
        Clusters are at least so far apart, 0 to 1.
    most : int
        Largest number of clusters.

    Returns
    -------
    FloatArray, shape (c, labels)
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # only here: it loads slowly

    if len(roots) > _SAMPLE:
        roots = roots[rng.choice(len(roots), _SAMPLE, replace=False)]
    if len(roots) < 2:
        return roots
    tree = linkage(roots / np.sqrt(2), method="average")
    cluster = fcluster(tree, apart, criterion="distance")
    if cluster.max() > most:
        cluster = fcluster(tree, most, criterion="maxclust")
    return np.array([roots[cluster == c].mean(axis=0) for c in range(1, cluster.max() + 1)])


def nearest_centre(roots: FloatArray, centres: FloatArray) -> IntArray:
    """The cluster of each client, by Hellinger's distance to the centres."""
    return np.asarray(((centres**2).sum(axis=1) - 2 * roots @ centres.T).argmin(axis=1))
