"""Energy of a board where nothing measures it: its cost model's, of what runs in which mode."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from powerctl.boards import Board
from powerctl.cost_model import Hardware, Signature, idle_power_w, minibatch_cost
from powerctl.modes import PowerMode
from powerctl.workload import Workload, stand_in


class EstimatedEnergy:
    """Joules of a board by its cost model: of a workload while it runs, else idle.

    A workload without a signature costs what a small network of its kind does.

    Parameters
    ----------
    board : Board
        Whose cost model it is.
    mode : PowerMode
        The mode in force now.
    clock : callable
        Seconds over which power is charged.
    """

    def __init__(
        self, board: Board, mode: PowerMode, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hardware = board.hardware
        self._mode = mode
        self._clock = clock
        self._lock = threading.Lock()  # energy is read while another thread executes
        self._energy_j, self._last_s = 0.0, clock()
        self._power_w = _idle_w(self._hardware, mode)

    def enter(self, mode: PowerMode) -> None:
        """Charge another mode from now on."""
        self._mode = mode
        self._charge(_idle_w(self._hardware, mode))

    @contextmanager
    def running(self, workload: Workload) -> Iterator[None]:
        """Charge a minibatch of a workload while the block runs, also if it raises."""
        signature = workload.signature or stand_in(workload.kind)
        self._charge(_busy_w(self._hardware, self._mode, signature, workload.batch_size))
        try:
            yield
        finally:
            self._charge(_idle_w(self._hardware, self._mode))

    def sample(self) -> float:
        """The watts that are charged now."""
        return self._power_w

    def energy_j(self) -> float:
        """Joules from when it was made up to now."""
        with self._lock:
            return self._energy_j + self._power_w * (self._clock() - self._last_s)

    def _charge(self, next_power_w: float) -> None:
        """Add the energy up to now; from here on the power is another."""
        with self._lock:
            now_s = self._clock()
            self._energy_j += self._power_w * (now_s - self._last_s)
            self._last_s, self._power_w = now_s, next_power_w


# Numpy takes 0.1 ms for them, as much as a small turn: so they are kept by mode and batch size.


@lru_cache(maxsize=256)
def _idle_w(hardware: Hardware, mode: PowerMode) -> float:
    return float(idle_power_w(hardware, *mode.values))


@lru_cache(maxsize=4096)
def _busy_w(hardware: Hardware, mode: PowerMode, signature: Signature, batch_size: int) -> float:
    return float(minibatch_cost(hardware, signature, *mode.values, batch_size).power_w)
