"""What a client's rounds need of its machine's memory, and what becomes of one that has too little.

Fewer minibatches need as much memory as many; smaller ones need less. So where a round did not fit
and the task takes its batch size from the run, the next one trains in minibatches of half as many
samples, twice as many of them, and is offered and charged as that. Where even an eighth does not
fit, or the batch size is the task's own, the client declines until more memory is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from powerctl.task.process_memory import ProcessMemory, oom_kills
from wattfed.client.worker.charging import usual_batch_size
from wattfed.client.worker.client_state import ClientState
from wattfed.strategies.run_config import RunConfig

BATCH_SIZE = "batch-size"  # key of a run's settings, for tasks of the user's own
_MOST_HALVINGS = 3  # to an eighth: still smaller ones learn something else, and take too long
_RESERVE = 1.1  # minibatches differ, and torch's blocks are not the same each time


class UnboundedMemory:
    """The memory of simulated clients, whose boards are not this host: every round fits."""

    def lack(self, count: Callable[[], int] | None = None) -> str:
        """Why a round does not fit now; empty if it does.

        `count` is of who is about to begin one, for before any was measured.
        """
        return ""

    def learn(self, fitted: bool) -> None:
        """Learn from a round that has begun and ended whether it fitted."""


class MachineMemory(UnboundedMemory):
    """The memory of the machine that a client trains on.

    Parameters
    ----------
    memory : ProcessMemory
        As the process sees it.
    state : ClientState
        Keeps the peak of the last round, and how small its minibatches are.
    halves : callable
        Whether minibatches can be half as large as they are.
    """

    def __init__(
        self, memory: ProcessMemory, state: ClientState, halves: Callable[[], bool]
    ) -> None:
        self._memory = memory
        self._state = state
        self._halves = halves

    def lack(self, count: Callable[[], int] | None = None) -> str:
        """Why a round does not fit now; the next one is smaller then, if it can be."""
        if peak_bytes := self._state.peak_bytes:
            more, how = self._more(peak_bytes), ""
        else:
            more, how = float(count() if count else 0), " (counted, none was measured yet)"
        if lack := self._memory.lack(more):
            self._halve()
            return lack + how
        if count:
            self._memory.forget_peak()
        return ""

    def learn(self, fitted: bool) -> None:
        """Keep the peak of a round that fitted; else make the next one smaller."""
        memory, state = self._memory, self._state
        if fitted:
            state.peak_bytes = memory.peak_bytes()
            twice = 2 * state.peak_bytes  # and no more than that takes twice the batch
            if state.halvings and self._more(twice) <= memory.free_bytes():
                state.halvings, state.peak_bytes = state.halvings - 1, twice
        elif not self._halve():
            there = memory.held_bytes() + memory.free_bytes()
            state.peak_bytes = max(memory.peak_bytes(), there)  # more than there is

    def _more(self, peak_bytes: int) -> float:
        """What must be free for a round with such a peak."""
        return _RESERVE * max(0, peak_bytes - self._memory.held_bytes())

    def _halve(self) -> bool:
        """Whether the next round's minibatches are half as large; nothing is known of those."""
        if self._state.halvings == _MOST_HALVINGS or not self._halves():
            return False
        self._state.halvings, self._state.peak_bytes = self._state.halvings + 1, 0
        return True


def halved(config: RunConfig, halvings: int) -> tuple[RunConfig, int]:
    """A run, and the usual size of its minibatches, with smaller ones; of one sample at least."""
    size = usual_batch_size(config)
    if not halvings:
        return config, size
    settings = tuple(
        (key, max(1, int(value) >> halvings) if key == BATCH_SIZE else value)
        for key, value in config.settings
    )
    return replace(config, settings=settings), max(1, size >> halvings)


def how_killed(room: UnboundedMemory, state: ClientState) -> str:
    """How a process died that has left a round under way, as the end of a sentence.

    If the kernel has killed for want of memory since it began, the next one is to be smaller.
    """
    counted = oom_kills()
    if -1 in (counted, state.oom_kills):
        return " (out of memory? the kernel does not say)"
    if counted <= state.oom_kills:
        return ", not for want of memory by the kernel's count"
    state.oom_kills = counted
    room.learn(fitted=False)
    return ", out of memory by the kernel's count"
