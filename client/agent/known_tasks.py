"""What the agent tells of its tasks: what is known of their costs, from what, and how sure."""

from __future__ import annotations

from powerctl.boards import Board
from powerctl.errors import InvalidInput
from wattfed.client.agent.idle_learning import IdleLearner
from wattfed.client.agent.members import Members
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.worker.cost_models import CostModels, KnownCosts


class KnownTasks:
    """The tasks that rounds, and measuring in idle time, have made an agent load.

    Parameters
    ----------
    board : Board
    costs : CostModels
        Knows them.
    members : Members
        Of rounds.
    learner : IdleLearner, optional
        Of idle time.
    """

    def __init__(
        self, board: Board, costs: CostModels, members: Members, learner: IdleLearner | None
    ) -> None:
        self._board = board
        self._costs = costs
        self._members = members
        self._learner = learner

    def told(self) -> list[pb.TaskCosts]:
        """What is known of each task, in the order in which they were heard of."""
        workloads = {workload.name: workload for workload in self._members.workloads()}
        if self._learner is not None and self._learner.measured is not None:
            own = self._learner.measured.workload
            workloads.setdefault(own.name, own)
        told = []
        for workload in workloads.values():
            try:
                told.append(_message(self._costs.known(self._board, workload)))
            except InvalidInput:  # a file that is none: rounds refuse it, and say so
                told.append(pb.TaskCosts(workload=workload.name, origin="no usable file"))
        return told

    @property
    def idle(self) -> str:
        """What measuring in idle time does now; empty if it is off."""
        return "" if self._learner is None else self._learner.doing


def _message(known: KnownCosts) -> pb.TaskCosts:
    table, aside = known.table, known.table.aside
    return pb.TaskCosts(
        workload=known.workload,
        origin=known.origin,
        modes=len(table.rows),
        idle_modes=sum(row.origin == "idle" for row in table.rows),
        measured_at_s=max((row.at_s for row in table.rows), default=0.0),
        time_std=known.time_std,
        power_std=known.power_std,
        aside_modes=0 if aside is None else len(aside.rows),
        aside_factor=1.0 if aside is None else aside.factor,
        spent_s=table.spent_s,
        spent_j=table.spent_j,
    )
