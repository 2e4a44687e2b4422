"""Clusters of clients whose data have similar labels."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from powerctl.modes import FloatArray, IntArray

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
