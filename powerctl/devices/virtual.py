"""The virtual clock and energy meter that the twin and the table device share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import lru_cache

from powerctl.boards import Board
from powerctl.cost_model import idle_power_w
from powerctl.device import Device, check_wait
from powerctl.modes import ModeSpace, PowerMode
from powerctl.workload import Workload


class VirtualDevice(Device):
    """A device without hardware: subclasses say what a minibatch costs.

    Parameters
    ----------
    board : Board
        Its hardware constants give the idle power.
    space : ModeSpace
        The modes that can be applied.
    settling_s : float
        Time constant with which power follows a change of load or mode.
    switch_s : float
        Time that a change of mode takes, at the old power.
    """

    is_virtual = True

    def __init__(
        self, board: Board, space: ModeSpace, *, settling_s: float = 0.0, switch_s: float = 0.0
    ) -> None:
        super().__init__(board, space)
        self._settling_s = settling_s
        self._switch_s = switch_s
        self._now_s = 0.0
        self._energy_j = 0.0
        self._found = self._mode = space.maximum
        self._power_w = self._idle_w = _idle_power_w(board, self._mode)

    def apply(self, mode: PowerMode) -> None:
        """Set a mode of the space; costs the switch time when it differs from the present one."""
        _check(self.space, mode)
        self._switch_to(mode)

    def mode(self) -> PowerMode:
        """The mode that minibatches are charged for."""
        return self._mode

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run the step, then charge the minibatch; returns its virtual seconds."""
        if step is not None:
            step()
        time_s, power_w = self._minibatch(workload)
        self._advance(time_s, power_w)
        return time_s

    def idle(self, seconds: float) -> None:
        """Let virtual time pass at the mode's idle power."""
        check_wait(seconds)
        self._advance(seconds, self._idle_w)

    def now(self) -> float:
        """Virtual seconds since the device was opened."""
        return self._now_s

    def energy_j(self) -> float:
        """Joules of the module since the device was opened."""
        return self._energy_j

    @property
    def falling_j(self) -> float:
        """Joules beyond idle that would still be drawn if the work ended now."""
        return self._settling_s * (self._power_w - self._idle_w)

    def restore(self) -> None:
        """Return to the mode found at opening, even if it is one that a table cannot run."""
        self._switch_to(self._found)

    @abstractmethod
    def _minibatch(self, workload: Workload) -> tuple[float, float]:
        """Seconds and watts of the next minibatch in the present mode."""

    def _switch_to(self, mode: PowerMode) -> None:
        if mode != self._mode:
            self._advance(self._switch_s, self._power_w)
            self._mode, self._idle_w = mode, _idle_power_w(self.board, mode)

    def _advance(self, seconds: float, power_w: float) -> None:
        """Let time pass while power approaches `power_w` with the settling time constant."""
        lag_s = 0.0
        if self._settling_s > 0:
            lag_s = self._settling_s * -math.expm1(-seconds / self._settling_s)
        self._now_s += seconds
        self._energy_j += power_w * seconds + (self._power_w - power_w) * lag_s
        if self._settling_s > 0:
            remaining = math.exp(-seconds / self._settling_s)
            self._power_w = power_w + (self._power_w - power_w) * remaining
        elif seconds > 0:
            self._power_w = power_w


@lru_cache(maxsize=4096)  # as below
def _check(space: ModeSpace, mode: PowerMode) -> None:
    space.check(mode)


@lru_cache(maxsize=4096)
def _idle_power_w(board: Board, mode: PowerMode) -> float:
    """Of one mode; a simulation opens the same few boards again and again."""
    return float(idle_power_w(board.hardware, *mode.values))
