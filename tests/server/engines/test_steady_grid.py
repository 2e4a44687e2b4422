from __future__ import annotations

import itertools
import time

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.in_process_grid import InProcessGrid
from wattfed.server.engines.flower import SteadyGrid

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


class SlowGrid(InProcessGrid):
    """Its nodes' replies are there at the second pull, or never."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__(app, 2, {})
        self._pulls = -1000 if silent else 0

    def pull_messages(self, message_ids):
        self._pulls += 1
        return super().pull_messages(message_ids) if self._pulls > 1 else []


def queries(grid):
    return [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]


@pytest.fixture(params=[86_400.0, -86_400.0], ids=["forward", "back"])
def jumping(request, monkeypatch):
    """The time of day jumps by a day whenever it is asked for."""
    days = itertools.count(time.time(), request.param)
    monkeypatch.setattr(time, "time", lambda: next(days))


def test_a_clock_that_is_set_ends_no_round(jumping):
    grid = SteadyGrid(SlowGrid())
    assert len(list(grid.send_and_receive(queries(grid), timeout=60.0))) == 2


def test_a_clock_that_is_set_prolongs_no_round(jumping):
    grid = SteadyGrid(SlowGrid(silent=True))
    assert list(grid.send_and_receive(queries(grid), timeout=0.2)) == []
