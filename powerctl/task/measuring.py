"""A user's task as something to be measured: one minibatch a call, as often as is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from powerctl.errors import InvalidInput, TaskFailed
from powerctl.task.arguments import alike
from powerctl.task.data import load_data, takes_batch_size
from powerctl.task.loading import Task
from powerctl.task.randomness import Randomness
from powerctl.task.training import Evaluation, Interrupted, Training, make_model

ENDLESS = 1_000_000  # minibatches: a loop is given the epochs for so many, and ended before
_USUAL: dict[str, Any] = {"partition_id": 0, "num_partitions": 1, "lr": 0.01}


class Repeated:
    """One minibatch of a task each time it is called; at the end it begins again.

    Parameters
    ----------
    task : Task
        Its settings say which client's data it is; by default that of one who has all.
    kind : {"train", "infer"}
        Whether it trains, or evaluates what it would train.
    batch_size : int
        Given to the task.
    """

    def __init__(self, task: Task, kind: str, batch_size: int) -> None:
        self._task = task
        self._kind = kind
        self._given = {**alone_given(task), "batch_size": batch_size}
        with Randomness(0):
            # a copy: a task may hand out one that somebody trains
            self._model = copy.deepcopy(make_model(task, self._given))
            self._loaders = load_data(task, self._given)
        if kind == "infer" and self._loaders.test is None:
            raise TaskFailed(
                f"{task.called('load_data')} returned one loader; to measure inference, return a "
                "second one to test with"
            )
        self._work: Training | Evaluation = self._begun()
        self._steps: Iterator[Callable[[], None]] = self._work.steps()

    def __call__(self) -> None:
        """Run one minibatch, from the beginning of the data where they end."""
        try:
            next(self._steps)()
        except Interrupted:
            self.close()
            self._work = self._begun()
            self._steps = self._work.steps()
            next(self._steps)()

    def close(self) -> None:
        """End the user's function where it waits."""
        self._work.close()

    def _begun(self) -> Training | Evaluation:
        if self._kind == "infer":
            return Evaluation(self._task, self._model, self._loaders.test, self._given, seed=0)
        given, loaders = self._given, self._loaders
        return Training(self._task, self._model, loaders, given, minibatches=ENDLESS, seed=0)


def alone_given(task: Task) -> dict[str, Any]:
    """What a task is given that is measured alone: it is the only client, unless it is set."""
    settings = {key.replace("-", "_") for key in task.settings}
    return {key: value for key, value in _USUAL.items() if not settings & {*alike(key)}}


def steps_of(task: Task, kind: str, sizes: Sequence[int]) -> Mapping[int, Repeated]:
    """Make what runs a minibatch of a task, for each batch size.

    Raises
    ------
    InvalidInput
        If there are several sizes, and the task's data do not depend on it.
    """
    if len(sizes) > 1 and not takes_batch_size(task):
        name = task.called("load_data")
        raise InvalidInput(f"{name} must take batch_size: several are to be measured")
    return {size: Repeated(task, kind, size) for size in sizes}
