"""The Task protocol: a model, its data, and how the data is split over clients."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from powerctl.errors import InvalidInput, UnknownName


class Samples(NamedTuple):
    """Inputs, shape (n, ...), and their labels, shape (n,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Samples:
        """Some of the samples."""
        return Samples(self.inputs[indices], self.labels[indices])


class Task(Protocol):
    """A classification task that a federation learns."""

    name: str

    def model(self) -> nn.Module:
        """A fresh model, with torch's own random initialisation."""
        ...

    def train_samples(self) -> Samples:
        """All training samples, before they are split over clients."""
        ...

    def test_samples(self) -> Samples:
        """The central test samples."""
        ...


TASK_NAMES = ("cifar10", "digits")


@lru_cache(maxsize=4)
def load_task(name: str, data_dir: str = "") -> Task:
    """The task of a name; `data_dir` is the folder of a data set that is not embedded."""
    if name == "digits":
        from client.tasks.digits import Digits

        return Digits()
    if name == "cifar10":
        from client.tasks.cifar10 import Cifar10

        return Cifar10(Path(data_dir))
    raise UnknownName("task", name, TASK_NAMES)


def dirichlet_split(
    labels: np.ndarray, n_clients: int, alpha: float, seed: int
) -> list[np.ndarray]:
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

    Returns
    -------
    list of ndarray of int
        Sample indices per client, ascending.
    """
    if n_clients < 1 or n_clients > len(labels):
        raise InvalidInput(f"cannot split {len(labels)} samples over {n_clients} clients")
    if not alpha > 0:
        raise InvalidInput(f"the Dirichlet concentration must be positive, got {alpha:g}")
    rng = np.random.default_rng((seed, n_clients))
    parts: list[list[int]] = [[] for _ in range(n_clients)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(n_clients, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(members)).round().astype(int)
        for part, chunk in zip(parts, np.split(members, cuts), strict=True):
            part.extend(chunk.tolist())
    for part in parts:
        while not part:
            part.append(max(parts, key=len).pop())
    return [np.sort(np.array(part)) for part in parts]


@lru_cache(maxsize=8)
def client_indices(task: Task, n_clients: int, alpha: float, seed: int) -> tuple[np.ndarray, ...]:
    """The split of a task's training samples, made once per process."""
    labels = task.train_samples().labels.numpy()
    return tuple(dirichlet_split(labels, n_clients, alpha, seed))
