"""What the engine runs: a job says what a turn of it is charged as, and runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from powerctl.workload import Workload
from wattfed.client.agent.tickets import BROKEN, EXPIRED, FAILED, Ticket


class Abandoned(Exception):
    """A turn was no minibatch like others, or the first one: its time is not to be learned from."""


class Broken(Exception):
    """What would run a turn is broken, and may be mended later."""


def reason_of(failure: Exception) -> str:
    """As what a request is refused whose turn has failed."""
    if isinstance(failure, Abandoned):
        return EXPIRED
    return BROKEN if isinstance(failure, Broken) else FAILED


class EngineJob(Protocol):
    """An inference service, a training job, or the workload of another process.

    A training job runs one minibatch a turn; its `run` is given no tickets and its values are
    ignored.
    """

    name: str

    def workload(self, size: int) -> Workload:
        """What a turn of so many requests is charged as."""
        ...

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """The next turn is this job's: told at once, before the device thread runs it.

        Called on whatever thread made the decision, with the engine's lock held: it must be
        quick, and may say with `Engine.want` that this minibatch was the last one wanted.
        """

    def run(self, tickets: Sequence[Ticket]) -> Sequence[Any]:
        """Run one turn on the device thread; returns a value for each ticket, or why it failed.

        Raises
        ------
        Abandoned
            If the turn's time says nothing of others; its tickets are refused with the message.
        Exception
            Anything else fails this batch, and only it; `Broken` that the next would fail too.
        """
        ...

    def ended(self) -> None:
        """The turn is over, however it was; on the device thread, before anybody is answered."""
