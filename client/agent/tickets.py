"""Tickets: a request from its arrival at the agent to its answer or refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LATE, FULL, REMOVED = "late", "full", "removed"  # as the interleaver refuses
STOPPING, FAILED, EXPIRED, BROKEN = "stopping", "failed", "expired", "broken"


@dataclass(frozen=True)
class TicketRefusal:
    """Why a request is not answered: one of the reasons above, and words for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class TicketAnswer:
    """What a request's batch gave it.

    Attributes
    ----------
    value : object
        The job's own: the outputs of a model.
    batch_size : int
    waited_s, ran_s : float
        From the arrival to the start of the batch; of the batch.
    """

    value: Any
    batch_size: int
    waited_s: float
    ran_s: float


@dataclass(eq=False, slots=True)
class Ticket:
    """A request to a job; equal to itself alone.

    Attributes
    ----------
    job : str
        Whose turn it waits for.
    payload : object
        The job's own.
    budget_s : float
        From arrival to answer.
    settle : callable
        Takes the `TicketAnswer` or `TicketRefusal`, once, on whatever thread; must not wait.
    arrived_s : float
        On the device's clock; set by the engine.
    """

    job: str
    payload: Any
    budget_s: float
    settle: Callable[[TicketAnswer | TicketRefusal], None]
    arrived_s: float = field(default=0.0)
