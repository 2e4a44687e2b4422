"""The tasks that come with us, and training and evaluation on samples at hand."""

from __future__ import annotations

import numpy as np

from powerctl.task.data import Loaders
from powerctl.task.loading import load_task as load_own
from powerctl.task.training import Training
from wattfed.client.tasks.federated import TASKS, federated
from wattfed.client.tasks.sampled import Minibatches, SampledTask
from wattfed.strategies.run_config import RunConfig


class _Nameless:
    name = "at hand"
    model = None


def load_task(name, data_dir=""):
    """A task with its samples in memory."""
    return TASKS.make(name, data_dir=data_dir)


def evaluate(model, samples, batch_size=512):
    """Accuracy and loss of a model on samples."""
    loader = Minibatches(samples, batch_size, shuffled=False)
    return SampledTask(_Nameless).test(model, loader)


def training_on(model, samples, batch_size=16, seed=1, proximal_mu=0.0):
    """The training of a model on samples, at the usual rate."""
    task = load_own(SampledTask(type("AtHand", (), {"name": "at hand", "model": lambda: model})))
    loaders = Loaders(Minibatches(samples, batch_size))
    given = {"lr": 0.05}
    return Training(task, model, loaders, given, minibatches=1, seed=seed, proximal_mu=proximal_mu)


def label_counts(name, n_clients, skew, seed=0, privacy=0.0):
    """What all clients of a task tell of their labels."""
    task = federated(RunConfig(task=name, skew=skew, seed=seed), 16)
    return task.label_counts(np.arange(n_clients), n_clients, privacy)
