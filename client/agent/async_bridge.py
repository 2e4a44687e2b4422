"""The bridge: where coroutines ask the engine, and its thread's answers come back to their loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from wattfed.client.agent.tickets import Ticket, TicketAnswer, TicketRefusal
from wattfed.client.agent.turn_engine import TurnEngine

_SLACK_S = 0.25


class Mailbox:
    """Calls from other threads to an event loop: however many, it is woken once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the loop; from any thread, and at once on the loop's own."""
        if threading.get_ident() == self._thread and not self._calls:
            call()
            return
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits for anything
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before the calls are taken: a later one wakes again
        while self._calls:
            self._calls.popleft()()


class Pending:
    """A request that waits for its turn; made by `AsyncBridge.submit`."""

    def __init__(self, engine: TurnEngine, ticket: Ticket) -> None:
        self._engine = engine
        self._ticket = ticket
        self.timer: asyncio.TimerHandle | None = None

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        self._engine.withdraw(self._ticket)
        self.over()

    def over(self) -> None:
        """It has been settled."""
        if self.timer is not None:
            self.timer.cancel()


class AsyncBridge:
    """Asks the engine for coroutines of the running loop."""

    def __init__(self, engine: TurnEngine) -> None:
        self.engine = engine
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(self._loop)

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the loop; from any thread."""
        self._mailbox.post(call)

    def submit(
        self,
        job: str,
        payload: Any,
        budget_s: float,
        settle: Callable[[TicketAnswer | TicketRefusal], None],
    ) -> Pending:
        """Submit a request; `settle` is called on the loop, or before this returns.

        A request that still waits some time after its budget is refused as late: the engine does
        so itself, unless a long turn keeps it from it.
        """
        ticket = Ticket(job, payload, budget_s, lambda o: self._mailbox.post(partial(settle, o)))
        pending = Pending(self.engine, ticket)
        self.engine.submit(ticket)
        pending.timer = self._loop.call_later(budget_s + _SLACK_S, self.engine.expire, ticket)
        return pending

    async def ask(self, job: str, payload: Any, budget_s: float) -> TicketAnswer | TicketRefusal:
        """Submit a request and wait for what becomes of it; withdrawn if that is cancelled."""
        future: asyncio.Future[TicketAnswer | TicketRefusal] = self._loop.create_future()

        def settle(outcome: TicketAnswer | TicketRefusal) -> None:
            if not future.done():
                future.set_result(outcome)

        pending = self.submit(job, payload, budget_s, settle)
        try:
            return await future
        finally:
            pending.withdraw()
