"""Flower's messages outside of Flower's runtimes."""

from __future__ import annotations

from typing import Any

SUPERLINK_NODE_ID = 1


def join_run(run_id: int) -> Any:
    """Let this process construct messages, and return an empty record of the run.

    From 1.38 on, Flower's runtimes tell each process which task it runs, and ``Message()`` refuses
    to work before that; outside a runtime we have to do it, by a private class. Earlier versions do
    not ask, and have the run's record in another place. An identity that a runtime gave stays.
    """
    try:
        from flwr.supercore.run import Run
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        from flwr.common.typing import Run  # type: ignore[attr-defined,no-redef]

        return Run.create_empty(run_id)
    if TaskIdentity._task_id is None:
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Run.create_empty(run_id)
