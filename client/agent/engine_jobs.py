"""What the engine runs: jobs, which take turns, and tickets, the requests that wait for one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from powerctl.workload import Workload

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


Outcome = TicketAnswer | TicketRefusal
"""What becomes of a request."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request to a job, from its arrival to its outcome; equal to itself alone.

    Attributes
    ----------
    job : str
        Whose turn it waits for.
    payload : object
        The job's own.
    budget_s : float
        From arrival to answer.
    settle : callable
        Takes the outcome, once, on whatever thread; must not wait.
    arrived_s : float
        On the device's clock; set by the engine.
    """

    job: str
    payload: Any
    budget_s: float
    settle: Callable[[Outcome], None]
    arrived_s: float = 0.0


class TurnFailure(Exception):
    """A turn has failed, as what its requests are refused."""

    reason = FAILED


class Abandoned(TurnFailure):
    """A turn was no minibatch like others, or the first one: its time is not to be learned from."""

    reason = EXPIRED


class Broken(TurnFailure):
    """What would run a turn is broken, and may be mended later."""

    reason = BROKEN


class EngineJob(ABC):
    """An inference service, a training job, or the workload of another process.

    A training job runs one minibatch a turn; its `run` is given no tickets and its values are
    ignored.
    """

    name: str

    @abstractmethod
    def workload(self, size: int) -> Workload:
        """The workload that a turn of so many requests is charged as."""

    def begin(self, tickets: Sequence[Ticket]) -> None:  # noqa: B027 - most need not hear
        """Hear that the next turn is this job's, before the device thread runs it.

        Called on whatever thread made the decision, with the engine's lock held: it must be
        quick, and may say with `TurnEngine.want` that this minibatch was the last one wanted.
        """

    @abstractmethod
    def run(self, tickets: Sequence[Ticket]) -> Sequence[Any]:
        """Run one turn on the device thread; returns a value for each ticket, or why it failed.

        Raises
        ------
        Abandoned
            If the turn's time says nothing of others; its tickets are refused with the message.
        Exception
            Anything else fails this batch, and only it; `Broken` that the next would fail too.
        """

    def ended(self) -> None:  # noqa: B027 - the same
        """Hear, on the device thread, that the turn is over, before anybody is answered."""
