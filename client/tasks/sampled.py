"""Tasks whose samples lie in memory: split over clients, learned by SGD, classified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from powerctl.modes import FloatArray, IntArray
from powerctl.task.data import Loaders
from powerctl.task.sgd import MomentumSGD
from powerctl.task.source_files import hash_of, sources_of
from wattfed.client.tasks.skews import Split, split_samples

_MOMENTUM = 0.9
_TEST_BATCH = 512


class Samples(NamedTuple):
    """Inputs, shape (n, ...), and their labels, shape (n,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> Samples:
        """The samples of some indices."""
        return Samples(self.inputs[indices], self.labels[indices])


class Sampled(Protocol):
    """A classification task that a federation learns, whose samples are in memory."""

    name: str

    def model(self) -> nn.Module:
        """A fresh model, with torch's own random initialisation."""
        ...

    def train_samples(self) -> Samples:
        """All training samples, before they are split over clients."""
        ...

    def test_samples(self) -> Samples:
        """All samples that the server tests with."""
        ...


class Minibatches:
    """The loader of samples in memory.

    Parameters
    ----------
    samples : Samples
    batch_size : int
        The last minibatch of an epoch may be smaller.
    shuffled : bool
        Whether each epoch has an order of its own, by `generator`.
    """

    def __init__(self, samples: Samples, batch_size: int, *, shuffled: bool = True) -> None:
        self.dataset = samples
        self.generator = torch.Generator()
        self._batch_size = batch_size
        self._shuffled = shuffled

    def __len__(self) -> int:
        return -(-len(self.dataset) // self._batch_size)

    def __iter__(self) -> Iterator[Samples]:
        n = len(self.dataset)
        order = torch.randperm(n, generator=self.generator) if self._shuffled else torch.arange(n)
        for picks in torch.split(order, self._batch_size):
            yield self.dataset.take(picks)


class SampledTask:
    """Such a task with the functions that a user's task has (`powerctl.task`).

    Parameters
    ----------
    task : Sampled
        Its own `train_step` or `make_optimizer`, if it has one, is taken; so are its `minibatches`
        of a client with so many samples. One with `shared_parts` splits its samples into so many
        where there are more clients than samples, who then share them in turn. One with
        `natural_clients`, of each training sample, can be split by them.
    """

    target = ("accuracy", "max")

    def __init__(self, task: Sampled) -> None:
        self.name = task.name
        self.make_model = task.model
        self._task = task
        for own in ("train_step", "make_optimizer"):
            if hasattr(task, own):
                setattr(self, own, getattr(task, own))

    @cached_property
    def _train(self) -> Samples:
        return self._task.train_samples()

    @cached_property
    def _test(self) -> Samples:
        return self._task.test_samples()

    @property
    def code_hash(self) -> str:
        """Of the files that define it; empty for ours, whose version is compared anyway."""
        module = sys.modules[type(self._task).__module__]
        return "" if module.__name__.startswith("wattfed.") else hash_of(sources_of(module))

    def load_data(
        self, partition_id: int, num_partitions: int, batch_size: int, skew: str, seed: int
    ) -> Any:
        """A client's samples, to train with and to evaluate with."""
        loaders = self.loaders(partition_id, num_partitions, batch_size, skew, seed)
        return loaders.train if loaders.validation is None else (loaders.train, loaders.validation)

    def loaders(
        self, client: int, n_clients: int, batch_size: int, skew: str, seed: int
    ) -> Loaders:
        """The loaders of a client, each known by what it is for."""
        split = self.split(n_clients, skew, seed)
        picks = split[client % len(split)]
        if minibatches := getattr(self._task, "minibatches", None):
            return Loaders(minibatches(len(picks), batch_size))
        own = self._train.take(torch.from_numpy(picks))
        rest = Minibatches(own, _TEST_BATCH, shuffled=False)
        return Loaders(Minibatches(own, batch_size), rest, rest)

    def central_data(self) -> Minibatches:
        """The loader of the samples that the server tests with."""
        return Minibatches(self._test, _TEST_BATCH, shuffled=False)

    def make_optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum."""
        return MomentumSGD(model.parameters(), lr, _MOMENTUM)

    def train_step(
        self, model: nn.Module, batch: Samples, optimizer: torch.optim.Optimizer
    ) -> float:
        """One step on the cross-entropy."""
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def test(self, model: nn.Module, testloader: Any) -> dict[str, float]:
        """Mean cross-entropy, and the share of samples classified rightly."""
        model.eval()
        loss = correct = n = 0.0
        for batch in testloader:
            logits = model(batch.inputs)
            loss += nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
            correct += (logits.argmax(dim=1) == batch.labels).sum().item()
            n += len(batch)
        return {"accuracy": correct / n, "loss": loss / n}

    @lru_cache(maxsize=8)  # noqa: B019 - a process has few tasks, and keeps them
    def split(self, n_clients: int, skew: str, seed: int) -> Split:
        """Which samples each client has; of fewer parts than clients, each is of several."""
        labels = self._train.labels.numpy()
        shared = getattr(self._task, "shared_parts", None)
        parts = n_clients if shared is None or n_clients <= len(labels) else shared
        groups = getattr(self._task, "natural_clients", None)
        return split_samples(labels, parts, skew, seed, groups)

    def sizes(self, n_clients: int, skew: str, seed: int) -> IntArray:
        """Samples of each client, shape (n_clients,)."""
        return np.resize(self.split(n_clients, skew, seed).sizes, n_clients)

    @lru_cache(maxsize=8)  # noqa: B019
    def counts(self, n_clients: int, skew: str, seed: int) -> FloatArray:
        """Samples of each label, shape (n_clients, labels)."""
        labels = self._train.labels.numpy()
        split = self.split(n_clients, skew, seed)
        n_labels = int(labels.max()) + 1
        owner = np.repeat(np.arange(len(split)), split.sizes)
        of_part = owner * n_labels + labels[split.indices]
        counts = np.bincount(of_part, minlength=len(split) * n_labels).astype(np.float64)
        return np.resize(counts, (n_clients, n_labels))
