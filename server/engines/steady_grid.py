"""Waiting for replies by a clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

OnPart = Callable[[str, int, int], object]
_LONGEST_PAUSE_S = 3.0


class SteadyGrid:
    """A Flower grid whose time-outs do not move with the time of day.

    Flower's own grids wait until a time of day: where the clock is set forward (as by the first
    NTP answer after a start), a round would end at once, and where it is set back, hours late.

    Parameters
    ----------
    grid : Grid
        What sends and receives.
    on_part : callable, optional
        Told of each wait: the kind of its messages, and how many of how many are answered.
    """

    def __init__(self, grid: Grid, on_part: OnPart = lambda *_: None) -> None:
        self._grid = grid
        self._on_part = on_part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, and wait for their replies; those that came when the time is over.

        Parameters
        ----------
        messages : iterable of Message
            To their nodes.
        timeout : float, optional
            Seconds to wait; None waits for all.
        """
        messages = list(messages)
        kind = messages[0].metadata.message_type if messages else ""
        missing = set(self._grid.push_messages(messages))
        replies: list[Message] = []
        began_s = time.monotonic()
        while True:
            came = list(self._grid.pull_messages(missing))
            replies += came
            missing -= {reply.metadata.reply_to_message_id for reply in came}
            if came:
                self._on_part(kind, len(replies), len(messages))
            waited_s = time.monotonic() - began_s
            if not missing or (timeout is not None and waited_s >= timeout):
                return replies
            time.sleep(min(0.1 + waited_s / 10, _LONGEST_PAUSE_S))
