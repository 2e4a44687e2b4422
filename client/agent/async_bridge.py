"""The bridge between coroutines and the engine: they ask it, and its answers come to their loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from wattfed.client.agent.engine_jobs import Outcome, Ticket
from wattfed.client.agent.turn_engine import TurnEngine

_SLACK_S = 0.25  # in which the engine itself refuses a late request, if no turn keeps it from it


class AsyncBridge:
    """Asks the engine for coroutines of the running loop.

    The loop is woken once for however many calls other threads have brought meanwhile.
    """

    def __init__(self, engine: TurnEngine) -> None:
        self.engine = engine
        self._loop = asyncio.get_running_loop()
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

    def submit(
        self, job: str, payload: Any, budget_s: float, settle: Callable[[Outcome], None]
    ) -> Callable[[], None]:
        """Submit a request; returns what withdraws it, when nobody waits for it any more.

        `settle` is called on the loop, or before this returns. A request that still waits some time
        after its budget is refused as late: the engine does so itself, unless a long turn keeps it
        from it.
        """

        def settled(outcome: Outcome) -> None:
            timer.cancel()
            settle(outcome)

        def withdraw() -> None:
            timer.cancel()
            self.engine.withdraw(ticket)

        ticket = Ticket(job, payload, budget_s, lambda o: self.post(partial(settled, o)))
        timer = self._loop.call_later(budget_s + _SLACK_S, self.engine.expire, ticket)
        self.engine.submit(ticket)
        return withdraw

    async def ask(self, job: str, payload: Any, budget_s: float) -> Outcome:
        """Submit a request and wait for what becomes of it; withdrawn if that is cancelled."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        withdraw = self.submit(job, payload, budget_s, settle)
        try:
            return await future
        finally:
            withdraw()

    def _deliver(self) -> None:
        self._woken = False  # before the calls are taken: a later one wakes again
        while self._calls:
            self._calls.popleft()()
