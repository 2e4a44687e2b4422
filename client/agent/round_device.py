"""Training in the agent: the device as one round sees it, on which minibatches wait their turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

from powerctl.device import Device, DeviceWrapper
from powerctl.fulcrum.turns import TrainingJob
from powerctl.modes import ModeSpace, PowerMode
from powerctl.task.training import Interrupted
from powerctl.workload import Workload
from wattfed.client.agent.engine_jobs import Abandoned, EngineJob, Ticket
from wattfed.client.agent.turn_engine import TurnEngine

_POLL_S = 0.5  # how often a minibatch that waits looks whether it still may run


def _only(device: Device) -> ModeSpace:
    """The space that has no mode but the one in force."""
    return ModeSpace(*((value,) for value in device.mode().values), name=device.board.name)


class PlannedDevice(DeviceWrapper):
    """A device as a client sees it whose agent plans: the mode in force is the only one."""

    @property
    def space(self) -> ModeSpace:
        """The modes that a round may choose from."""
        return _only(self.device)


@dataclass
class _Minibatch:
    """One minibatch, from the wish to run it to its end."""

    step: Callable[[], None]
    over: threading.Event = field(default_factory=threading.Event)
    start_s: float = 0.0
    start_j: float = 0.0
    time_s: float = 0.0
    energy_j: float = 0.0
    error: Exception | None = None


class RoundDevice(DeviceWrapper, EngineJob):
    """The agent's device for one round: `execute` waits until the interleaver gives a turn.

    Time is the device's. Energy is that of this round's own turns, so that what inference takes is
    not charged to training.

    Parameters
    ----------
    engine : TurnEngine
        Has the device.
    name : str
        Of the round, among the engine's jobs.
    workload : Workload
        What a minibatch is charged as.
    expected_s : float
        Of a minibatch, to begin with.
    sets_modes : bool
        Whether the round sets the mode; else it trains in the one that is in force.
    is_cold : bool
        Whether the first minibatch warms up, so that nothing is to be learned of its time.
    """

    def __init__(
        self,
        engine: TurnEngine,
        name: str,
        workload: Workload,
        expected_s: float,
        *,
        sets_modes: bool = True,
        is_cold: bool = False,
    ) -> None:
        super().__init__(engine.device)
        self._sets_modes = sets_modes
        self._is_cold = is_cold
        self.name = name
        self._engine = engine
        self._workload = workload
        self._expected_s = expected_s
        self._energy_j = 0.0
        self._until_s = float("inf")
        self._found: PowerMode | None = None
        self._restores = False
        self._interrupted = ""
        self._waiting: _Minibatch | None = None
        self._running: _Minibatch | None = None
        self._lock = threading.Lock()
        engine.add_training(self, TrainingJob(name, expected_s))

    # What a round sees: powerctl.device.Device

    @property
    def module(self) -> Device:
        """The agent's device, whose energy is that of all turns."""
        return self.device

    @property
    def space(self) -> ModeSpace:
        """The modes that the round may choose from."""
        return self.device.space if self._sets_modes else _only(self.device)

    def apply(self, mode: PowerMode) -> None:
        """Apply a mode between turns; requests that wait are served before and after."""
        if not self._sets_modes:
            return
        if self._found is None:
            self._found = self.mode()
            self._restores = self.device.is_untouched
        try:
            self._engine.change(mode).result()
        except CancelledError:
            raise Interrupted("the agent stops") from None

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch when its turn has come; returns its own seconds.

        Raises
        ------
        Interrupted
            If the round is cancelled, or its time ends before the turn.
        """
        wanted = _Minibatch(step or _no_step)
        with self._lock:
            self._waiting = wanted
        self._engine.want(self.name)
        while not wanted.over.wait(self._patience_s()):
            why = self._why_not()
            if why and self._take_back():
                self._engine.want(self.name, False)
                raise Interrupted(why)
        self._energy_j += wanted.energy_j
        if wanted.error is not None:
            raise wanted.error
        if not self._is_cold:
            self._expected_s = wanted.time_s
        self._is_cold = False
        return wanted.time_s

    def energy_j(self) -> float:
        """Joules of this round's own turns."""
        return self._energy_j

    def restore(self) -> None:
        """Return to the mode that the round found; to all that was, if none had been applied."""
        if self._found is None:
            return
        try:
            if self._restores:
                self._engine.between_turns(self.device.restore).result()
            elif self._found != self.mode():
                self._engine.change(self._found).result()
        except CancelledError:
            return  # the agent stops, and restores the device itself

    # What the agent does with it

    def end_at(self, until_s: float) -> None:
        """No minibatch begins that would not end by a time on the device's clock."""
        self._until_s = until_s

    def interrupt(self, why: str) -> None:
        """End the round after the running minibatch; any thread may ask."""
        self._interrupted = self._interrupted or why

    def close(self) -> None:
        """Leave the engine, which gives it no more turns."""
        self._engine.remove(self.name)

    # What the engine sees: client.agent.engine_jobs.EngineJob

    def workload(self, size: int) -> Workload:
        """The workload that a minibatch is charged as."""
        return self._workload

    def run(self, tickets: Sequence[Ticket]) -> Sequence[Any]:
        """Run the minibatch that waits, on the device thread."""
        self._engine.want(self.name, False)  # until the round wants the next one
        with self._lock:
            wanted, self._waiting = self._waiting, None
        if wanted is None:  # taken back while the turn was being given
            return ()
        wanted.start_s, wanted.start_j = self.now(), self.device.energy_j()
        self._running = wanted
        try:
            wanted.step()
        except Exception as error:  # the round's own thread is told
            wanted.error = error
        if self._is_cold:
            raise Abandoned("it warmed up")
        return ()

    def ended(self) -> None:
        """Tell the round what its minibatch took."""
        wanted, self._running = self._running, None
        if wanted is None:
            return
        wanted.time_s = self.now() - wanted.start_s
        wanted.energy_j = self.device.energy_j() - wanted.start_j
        wanted.over.set()

    def _why_not(self) -> str:
        """Why no minibatch may begin now; empty if it may."""
        if self._interrupted:
            return self._interrupted
        return "deadline" if self.now() + self._expected_s > self._until_s else ""

    def _patience_s(self) -> float:
        left_s = self._until_s - self._expected_s - self.now()
        return max(0.0, min(_POLL_S, left_s)) if not self._interrupted else 0.0

    def _take_back(self) -> bool:
        """Whether the minibatch still waited, and does not any more."""
        with self._lock:
            taken, self._waiting = self._waiting, None
        return taken is not None


def _no_step() -> None:
    """Compute nothing: the minibatch of a device that only charges for it."""
