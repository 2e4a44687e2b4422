"""The Task protocol: a model and its data; and which samples each client has."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from client.tasks.splitting import Split, dirichlet_split
from powerctl.errors import UnknownName


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


TASK_NAMES = ("cifar10", "digits", "noop")


@lru_cache(maxsize=4)
def load_task(name: str, data_dir: str = "") -> Task:
    """The task of a name; `data_dir` is the folder of a data set that is not embedded."""
    if name == "digits":
        from client.tasks.digits import Digits

        return Digits()
    if name == "cifar10":
        from client.tasks.cifar10 import Cifar10

        return Cifar10(Path(data_dir))
    if name == "noop":
        from client.tasks.noop import Noop

        return Noop()
    raise UnknownName("task", name, TASK_NAMES)


@lru_cache(maxsize=8)
def client_indices(task: Task, n_clients: int, alpha: float, seed: int) -> Split:
    """The split of a task's training samples, made once per process."""
    return dirichlet_split(task.train_samples().labels.numpy(), n_clients, alpha, seed)
