"""The Task protocol: a model and its data; and which samples each client has."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from powerctl.modes import FloatArray
from powerctl.plugins import Kind
from wattfed.client.tasks.skews import split_samples
from wattfed.client.tasks.splitting import Split


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


TASKS = Kind[Task](
    "task",
    "wattfed.tasks",
    {
        "cifar10": "wattfed.client.tasks.cifar10:Cifar10",
        "digits": "wattfed.client.tasks.digits:Digits",
        "images-cnn": "wattfed.client.tasks.images:ImagesCnn",
        "images-mlp": "wattfed.client.tasks.images:ImagesMlp",
        "noop": "wattfed.client.tasks.noop:Noop",
    },
    Task,
    fixed=("data_dir",),
)


def task_names() -> list[str]:
    """Names of the tasks."""
    return TASKS.names()


@lru_cache(maxsize=4)
def load_task(name: str, data_dir: str = "") -> Task:
    """The task of a name, or of others; `data_dir` is the folder of its data, where it has one.

    Tasks may take parameters: ``images-cnn(samples=200000, noise=0.9)``.
    """
    return TASKS.make(name, data_dir=data_dir)


@lru_cache(maxsize=8)
def client_indices(task: Task, n_clients: int, skew: str, seed: int) -> Split:
    """The split of a task's training samples, made once per process."""
    return split_samples(task.train_samples().labels.numpy(), n_clients, skew, seed)


@lru_cache(maxsize=8)
def client_labels(task: Task, n_clients: int, skew: str, seed: int, privacy: float) -> FloatArray:
    """What clients tell of their labels: examples of each, shape (n_clients, labels).

    Parameters
    ----------
    privacy : float
        Where it is not 0, counts carry Laplace noise of scale 1 / privacy, drawn once. It is from
        the seed, so that a simulation can be repeated: a study of what noise costs. What deployed
        clients tell has noise of `wattfed.client.tasks.label_noise` in its place.
    """
    labels = task.train_samples().labels.numpy()
    split = client_indices(task, n_clients, skew, seed)
    n_labels = int(labels.max()) + 1
    owner = np.repeat(np.arange(n_clients), split.sizes)
    of_client = owner * n_labels + labels[split.indices]
    counts = np.bincount(of_client, minlength=n_clients * n_labels).astype(np.float64)
    if privacy:
        counts += np.random.default_rng((seed, 1)).laplace(0, 1 / privacy, len(counts))
    return counts.reshape(n_clients, n_labels)
