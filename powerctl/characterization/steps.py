"""What is done with a minibatch that a bench has loaded: the task's own training, or its test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from powerctl.errors import InvalidInput
from powerctl.task.data import Loaders
from powerctl.task.loading import Task
from powerctl.task.measuring import ENDLESS, alone_given
from powerctl.task.randomness import Randomness
from powerctl.task.training import Evaluation, Training, make_model


class Step:
    """Runs the task's own code on one minibatch after the other; gives its number of samples.

    Parameters
    ----------
    task : Task
        Its `train` or `train_step`, or its `test`.
    kind : {"train", "infer"}
        Which of them.
    loader : DataLoader
        What the task's code believes to iterate over.
    device : torch.device
    seed : int
        Of the weights.
    """

    def __init__(self, task: Task, kind: str, loader: Any, device: torch.device, seed: int) -> None:
        given = {**alone_given(task), "device": device}
        with Randomness(seed):
            model = make_model(task, given)
        self._batches = _Handed(loader)
        self._work: Training | Evaluation
        if kind == "infer":
            self._work = Evaluation(task, model, self._batches, given, seed=seed)
        else:
            loaders = Loaders(self._batches, loader, loader)
            self._work = Training(task, model, loaders, given, minibatches=ENDLESS, seed=seed)
        self._steps = self._work.steps()

    def __call__(self, batch: Any) -> int:
        """Run the task's code on one minibatch; gives its number of samples."""
        self._batches.batch = batch
        next(self._steps)()
        return _examples(batch)

    def close(self) -> None:
        """End the task's code where it waits."""
        self._work.close()


class _Handed:
    """An endless loader of the minibatches that it is handed, with all else that a loader has."""

    def __init__(self, loader: Any) -> None:
        self.batch: Any = None
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.batch

    def __len__(self) -> int:
        return ENDLESS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _examples(batch: Any) -> int:
    """The length of a minibatch: of its last part, which may be the only one that is no list."""
    if isinstance(batch, Mapping):
        batch = next(iter(batch.values()), ())
    elif isinstance(batch, Sequence):
        batch = batch[-1]
    try:
        return len(batch)
    except TypeError:
        raise InvalidInput(
            f"the data set gives minibatches of {type(batch).__name__}, which have no length"
        ) from None
