"""The task that is measured in idle time: its workload, and minibatches of its own copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from powerctl.errors import InvalidInput
from powerctl.pagoda.counted import CountedTask
from powerctl.task.measuring import Repeated
from powerctl.workload import Workload
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.tasks.federated import federated
from wattfed.client.worker.costs import counted_in
from wattfed.strategies.run_config import RunConfig

_USUAL_BATCH_SIZE = 16
_OF_CLIENT = {"partition-id": 0, "num-partitions": 1}


@dataclass(frozen=True)
class IdleTask:
    """A task that is measured in idle time.

    Attributes
    ----------
    workload : Workload
        Named by the task, its code and its batch size; its costs are counted.
    step : callable
        Makes what runs a minibatch, with a model and data of its own; takes as long as loading.
    """

    workload: Workload
    step: Callable[[], Repeated]


def idle_task(name: str, settings: Mapping[str, Any], tasks: OwnTasks) -> IdleTask:
    """The task of a name that was added to an agent, and what was counted of it.

    Parameters
    ----------
    name : str
        Of the task, or what it was added by.
    settings : mapping
        Keys of a run's configuration, or of the node's own.
    tasks : OwnTasks
        Of the agent.

    Raises
    ------
    InvalidInput
        If there is none, it has changed since it was added, or a key is not known.
    TaskFailed
        If its code fails.
    """
    own = {key: value for key, value in settings.items() if key not in _OF_CLIENT}
    config = RunConfig.from_flower({"task": _source(name, tasks), **own})
    task = federated(config, _USUAL_BATCH_SIZE).task
    alone = task.with_settings(
        {"skew": config.split, "seed": config.seed, **_OF_CLIENT, **settings}
    )
    counted = CountedTask(
        task,
        given={k.replace("-", "_"): alone.settings[k] for k in _OF_CLIENT},
        folder=counted_in(tasks.folder),
    )
    workload = counted.workload()
    return IdleTask(workload, lambda: Repeated(alone, "train", workload.batch_size))


def _source(name: str, tasks: OwnTasks) -> str:
    """What is loaded for a name; raises `InvalidInput` if nothing of that name was added."""
    listed = tasks.listed()
    for own in listed:
        if name in (own.name, own.source):
            return tasks.source(own.source, own.code_hash)
    known = ", ".join(own.name for own in listed) or "none"
    raise InvalidInput(
        f"[idle] task: this agent has no task {name!r}, but {known}; add it with: "
        f"wattfed-agent task add {name}"
    )
