"""What a user's `test` returns, as numbers by name; and which of them counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from powerctl.errors import TaskFailed
from powerctl.task.loading import Task

_USUAL = (("accuracy", "max"), ("acc", "max"), ("loss", "min"))


def metrics_of(task: Task, returned: Any) -> dict[str, float]:
    """The metrics that a user's `test` returned, checked, as numbers by name.

    Parameters
    ----------
    task : Task
        For errors, and the name of its target.
    returned : object
        A mapping of names to numbers, also NumPy's and torch's; a pair of loss and accuracy, as in
        Flower's examples; one number, which is the target, or the loss.

    Raises
    ------
    TaskFailed
        If it is something else, or the target is not among it.
    """
    name = task.called("test")
    if isinstance(returned, list) and len(returned) == 1:  # of Lightning's `Trainer.test`
        returned = returned[0]
    if isinstance(returned, tuple) and len(returned) == 2:
        returned = dict(zip(("loss", "accuracy"), returned, strict=True))
    if not isinstance(returned, Mapping):
        returned = {task.target[0] if task.target else "loss": returned}
    metrics = {}
    for key, value in returned.items():
        number = number_of(value)
        if not isinstance(key, str) or number is None:
            raise TaskFailed(
                f"{name} returned {value!r:.60} as {key!r}: expected numbers by name, the pair "
                "(loss, accuracy), or one number"
            )
        if not (key and key.isprintable()):
            raise TaskFailed(
                f"{name} returned a metric called {key!r:.60}: expected one line of text"
            )
        metrics[key] = number
    if not metrics:
        raise TaskFailed(f"{name} returned no metric")
    return metrics


def target_of(task: Task, metrics: Mapping[str, float]) -> tuple[str, str]:
    """The metric that counts, and its direction: the task's own, else accuracy, else the loss.

    Raises
    ------
    TaskFailed
        If it is not among the metrics, or cannot be told.
    """
    if task.target is not None:
        if task.target[0] not in metrics:
            raise TaskFailed(
                f"{task.called('test')} returned {', '.join(metrics)}, without the target "
                f"{task.target[0]!r}"
            )
        return task.target
    for word, direction in _USUAL:
        for key in metrics:
            if re.split(r"[\W_]+", key.lower())[-1] == word:
                return key, direction
    raise TaskFailed(
        f"{task.called('test')} returned {', '.join(metrics)}: say which counts, as "
        f'target = ("{next(iter(metrics))}", "max") in {task.where}, or "min"'
    )


def number_of(value: Any) -> float | None:
    """A number of Python, NumPy or torch as a float; None for what is no single number."""
    if type(value) is float:  # what most steps return
        return value
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):
        return None
