"""What a user's `load_data` returns, sorted into loaders, and what is known of a client's data."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from powerctl.errors import TaskFailed
from powerctl.modes import IntArray
from powerctl.task.arguments import parameters_of
from powerctl.task.loading import Task

_PARTS = ("train", "validation", "test")
_KEYS = {
    "train": ("train", "trainloader", "train_loader"),
    "validation": ("validation", "val", "valid", "valloader", "val_loader"),
    "test": ("test", "testloader", "test_loader"),
}


@dataclass(frozen=True)
class Loaders:
    """The minibatches of a client: to train with, and to evaluate with where there are any.

    `validation` is what a pair has second; `test` is that as well, unless there is a third.
    """

    train: Any
    validation: Any = None
    test: Any = None


def load_data(task: Task, given: Mapping[str, Any]) -> Loaders:
    """The loaders of a client, from the task's `load_data`.

    It may return one loader, two or three, or a mapping with the keys train, validation and test.
    A loader is whatever gives minibatches, again and again: with or without a length, with
    workers or without; a data set of torch is put into a `DataLoader` of the batch size given.

    Raises
    ------
    TaskFailed
        If it returns something else.
    """
    name = task.called("load_data")
    returned = task.call("load_data", given)
    if isinstance(returned, Mapping):
        parts = {part: _of(returned, keys) for part, keys in _KEYS.items()}
        if parts["train"] is None:
            raise TaskFailed(
                f"{name} returned a mapping of {', '.join(map(str, returned))}, without 'train'"
            )
    elif isinstance(returned, tuple):
        if not 1 <= len(returned) <= 3:
            raise TaskFailed(f"{name} returned {len(returned)} things, expected up to 3 loaders")
        parts = dict(zip(_PARTS, returned, strict=False))
    else:
        parts = {"train": returned}
    loaders = {
        part: _loader(loader, part, name, given)
        for part, loader in parts.items()
        if loader is not None or part == "train"
    }
    usual = loaders.get("validation")
    return Loaders(loaders["train"], usual, loaders.get("test", usual))


def takes_batch_size(task: Task) -> bool:
    """Whether the minibatches of a task have the size that its `load_data` is given."""
    parameters = parameters_of(task.functions["load_data"], task.called("load_data"))
    return "batch_size" in {parameter.name for parameter in parameters}


def central_data(task: Task, given: Mapping[str, Any]) -> Any:
    """The loader that the server evaluates with; None where the task has none."""
    if not task.has("central_data"):
        return None
    returned = task.call("central_data", given)
    return _loader(returned, "test", task.called("central_data"), given)


def num_examples(task: Task, given: Mapping[str, Any]) -> int | None:
    """How many examples a client trains with, by the task's own function; None without one."""
    if not task.has("num_examples"):
        return None
    returned = task.call("num_examples", given)
    if not isinstance(returned, numbers.Integral) or returned < 0:
        raise TaskFailed(
            f"{task.called('num_examples')} returned {returned!r:.60}, expected a count"
        )
    return int(returned)


def label_counts(task: Task, given: Mapping[str, Any]) -> IntArray | None:
    """How many examples of each label a client has, by the task's own function; None without one.

    Parameters
    ----------
    task : Task
        Its function returns a sequence by label, or a mapping of labels from 0.
    given : mapping
    """
    if not task.has("label_counts"):
        return None
    returned = task.call("label_counts", given)
    try:
        if isinstance(returned, Mapping):
            keys = [int(key) for key in returned]
            counts = np.zeros(max(keys, default=-1) + 1)
            counts[keys] = list(returned.values())
        else:
            counts = np.asarray(returned, dtype=np.float64)
        if counts.ndim == 1 and (counts >= 0).all() and (counts == counts.round()).all():
            return counts.astype(np.int64)
    except (TypeError, ValueError, IndexError):
        pass
    raise TaskFailed(
        f"{task.called('label_counts')} returned {returned!r:.60}, expected a count for each label"
    )


def minibatches_of(loader: Any) -> int | None:
    """How many minibatches a loader gives in an epoch; None where it does not say."""
    try:
        return len(loader)
    except TypeError:  # none, or that of an IterableDataset
        return None


def examples_of(loader: Any) -> int | None:
    """How many examples a loader gives in an epoch, at most; None where it does not say."""
    try:
        return len(loader.dataset)
    except (TypeError, AttributeError):
        return None


def _of(returned: Mapping[Any, Any], keys: Iterable[str]) -> Any:
    return next((returned[key] for key in keys if key in returned), None)


def _loader(loader: Any, part: str, name: str, given: Mapping[str, Any]) -> Any:
    if isinstance(loader, Dataset):
        if "batch_size" not in given:
            raise TaskFailed(f"{name} returned a data set; return a DataLoader, with a batch size")
        iterable = isinstance(loader, IterableDataset)
        if not iterable and not len(loader):  # type: ignore[arg-type]
            return []  # which a DataLoader that shuffles would refuse
        shuffle = part == "train" and not iterable
        return DataLoader(loader, batch_size=given["batch_size"], shuffle=shuffle)
    no_loaders = (str, bytes, Mapping, Tensor, np.ndarray)
    if isinstance(loader, no_loaders) or not hasattr(loader, "__iter__"):
        raise TaskFailed(
            f"{name} returned a {type(loader).__name__} to {part} with, expected a loader: what "
            "gives minibatches when it is iterated over"
        )
    return loader
