"""The agent's device as measuring in idle time sees it: its own turns, while none is in the way.

Modes are changed between turns like a round's, but only to those in which every service still keeps
its latency beside a training minibatch. The interleaver judges that: the same that gives the turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace

from powerctl.device import Device, DeviceWrapper
from powerctl.fulcrum.guard import Guard, GuardLimits, Ladder, PowerGuard
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import ServiceSpec, TrainingJob
from powerctl.modes import PowerMode
from powerctl.task.training import Interrupted
from powerctl.workload import Workload
from wattfed.client.agent.round_device import RoundDevice
from wattfed.client.agent.turn_engine import TurnEngine

_LOOK_S = 0.5  # between two looks at heat, power and requests
_PATIENCE_S = 3.0  # for a turn; less than that after which the interleaver tries a job anyway
_MOST_LOAD = 0.7  # share of the device's time that inference may need in a slower mode
_HEADROOM = 2.0
_UNSEEN = 2.0  # requests within a budget, of a service that nobody has asked yet
_NAME = "idle"


class ServiceRoom:
    """The room that the services of an engine leave for a training minibatch, in any mode.

    Times of a service in another mode are bounded, and not predicted: whatever bounds a batch, it
    takes at most as much longer as the cycles of all cores, or another clock, become fewer. They
    must leave room if they take twice as long as that: a busy machine has its moments. Requests
    may come at once as they came when there were most, and two within a budget where none has come
    yet: before a mode is brought back that is too slow for them, some of them would be late.

    Parameters
    ----------
    engine : TurnEngine
        Its services are taken as they are now, in the mode in force.
    peaks_hz : dict of str to float
        The highest rate of each service so far; kept up to date.
    """

    def __init__(self, engine: TurnEngine, peaks_hz: dict[str, float]) -> None:
        self._engine = engine
        self._peaks_hz = peaks_hz
        self.found = engine.device.mode()
        self.services, _ = engine.expected()

    def services_in(self, mode: PowerMode) -> list[ServiceSpec]:
        """The services with the longest that their batches may take in a mode."""
        slower = max(1.0, *(a / b for a, b in zip(_speeds(self.found), _speeds(mode), strict=True)))
        return [
            replace(one, time_s={size: slower * time_s for size, time_s in one.time_s.items()})
            for one in self.services
        ]

    def fits(self, mode: PowerMode, minibatch_s: float) -> bool:
        """Whether a minibatch fits between the requests as they come now, in a mode."""
        if not self.services:
            return True
        peaks_hz = self._peaks_hz
        for job in self._engine.state().jobs:
            peaks_hz[job.name] = max(job.rate_hz, peaks_hz.get(job.name, 0.0))
        services = [
            replace(
                one,
                rate_hz=max(peaks_hz.get(one.name, 0.0), _UNSEEN / one.latency_s),
                time_s={size: _HEADROOM * time_s for size, time_s in one.time_s.items()},
            )
            for one in self.services_in(mode)
        ]
        judge = Interleaver(services, [TrainingJob(_NAME, _HEADROOM * minibatch_s)])
        judge.want(_NAME)
        return judge.load < _MOST_LOAD and judge.has_room_for_training(0.0)

    def has_changed(self) -> bool:
        """Whether there are other services than there were."""
        jobs = self._engine.state().jobs
        return {job.name for job in jobs if not job.is_training} != {s.name for s in self.services}


def _speeds(mode: PowerMode) -> tuple[int, int, int]:
    """Cycles of all cores, of the GPU and of the memory, as far as they bound a batch."""
    return mode.cores * mode.cpu_khz, mode.gpu_hz, mode.mem_hz


@dataclass(frozen=True)
class IdleBudget:
    """What measuring may take from now on: seconds and joules of its own turns."""

    time_s: float
    energy_j: float


class BudgetSpent(Interrupted):
    """All that measuring may take has been taken."""


class TooMuchPower(Interrupted):
    """A mode draws more than the limit.

    Attributes
    ----------
    time_s, power_w : float
        Of its minibatches so far, and of the module.
    minibatches : int
        How many there were.
    """

    def __init__(self, time_s: float, power_w: float, minibatches: int) -> None:
        super().__init__(f"power: {power_w:.3g} W")
        self.time_s, self.power_w, self.minibatches = time_s, power_w, minibatches


class IdleDevice(DeviceWrapper):
    """A device whose clock and energy are those of its own turns.

    `execute` raises `Interrupted` where a minibatch may not run: the message says why, in a word or
    two.

    Parameters
    ----------
    engine : TurnEngine
        Gives the turns.
    workload : Workload
        What a minibatch is charged as.
    expects_s : callable
        The longest that a minibatch should take in a mode.
    budget : IdleBudget
        What may be spent.
    power_w : float
        Limit of the module's power.
    peaks_hz : dict of str to float
        As for `ServiceRoom`.
    is_cold : bool
        As for `RoundDevice`.
    """

    def __init__(
        self,
        engine: TurnEngine,
        workload: Workload,
        expects_s: Callable[[PowerMode], float],
        budget: IdleBudget,
        power_w: float = math.inf,
        *,
        peaks_hz: dict[str, float],
        is_cold: bool = False,
    ) -> None:
        self.room = ServiceRoom(engine, peaks_hz)
        self._turns = RoundDevice(
            engine,
            f"{_NAME} {workload.name}",
            workload,
            expects_s(self.room.found),
            is_cold=is_cold,
        )
        super().__init__(self._turns)
        self._engine = engine
        self._expects_s = expects_s
        self._budget = budget
        self._power_w = power_w
        self._restores = engine.device.is_untouched
        self._is_changed = False
        self._busy_s = 0.0
        self._took_s = expects_s(self.room.found)  # by the last minibatch, in whatever mode
        self._begin(self.room.found)

    @property
    def module(self) -> Device:
        """The agent's device, whose energy is that of all turns."""
        return self._engine.device

    def now(self) -> float:
        """Seconds of its own turns so far."""
        return self._busy_s

    def apply(self, mode: PowerMode) -> None:
        """Apply a mode between turns, and have the interleaver expect the longest times in it."""
        self._is_changed = True
        job = TrainingJob(self._turns.name, self._expects_s(mode))
        try:
            self._engine.change(mode, self.room.services_in(mode), [job]).result()
        except CancelledError:
            raise Interrupted("the agent stops") from None
        self._begin(mode)

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Run one minibatch when its turn has come; returns its own seconds."""
        if self._engine.device.now() >= self._look_s:
            self.look()
        elif self.room.services:  # they may come at any time
            self._check_room()
        if self.now() >= self._budget.time_s or self.energy_j() >= self._budget.energy_j:
            raise BudgetSpent("budget")
        longest_s = max(self._took_s, self._expects_s(self._mode))
        self._turns.end_at(self._engine.device.now() + _PATIENCE_S + longest_s)
        self._took_s = took_s = self._turns.execute(workload, step)
        self._busy_s += took_s
        self._times_s.append(took_s)
        return took_s

    def look(self) -> None:
        """Look whether anything speaks against the next minibatch, and raise it.

        Raises
        ------
        TooMuchPower
            If the module's power is above the limit.
        Interrupted
            For heat, over-current, a mode that is not in force, or requests that leave no room.
        """
        module = self._engine.device
        now_s = module.now()
        self._look_s = now_s + _LOOK_S
        if why := self._throttled():
            raise Interrupted(f"throttling: {why}")
        if module.excess_c() > 0:
            raise Interrupted("too hot")
        if module.mode() != self._mode:
            raise Interrupted(f"mode {self._mode} is not in force any more")
        self._check_room()
        if self._guard.is_due(now_s) and self._guard.observe(now_s, module.energy_j()):
            times_s = self._times_s[1:] or self._times_s
            if not times_s:  # what draws it are requests
                raise Interrupted(f"power: {self._guard.mean_w:.3g} W")
            raise TooMuchPower(sum(times_s) / len(times_s), self._guard.mean_w, len(times_s))

    def _check_room(self) -> None:
        if self.room.has_changed() or not self.room.fits(self._mode, self._longest_s()):
            raise Interrupted("requests")

    def restore(self) -> None:
        """Bring back the mode that was found, with the times of then."""
        if not self._is_changed:
            return
        self._is_changed = False
        try:
            if self._restores:
                self._engine.restore(self.room.services).result()
            else:
                self._engine.change(self.room.found, self.room.services).result()
        except CancelledError:
            return  # the agent stops, and restores the device itself

    def interrupt(self, why: str) -> None:
        """End after the running minibatch; any thread may ask."""
        self._turns.interrupt(why)

    def close(self) -> None:
        """Leave the engine, which gives it no more turns."""
        self._turns.close()

    def _begin(self, mode: PowerMode) -> None:
        """Begin to watch the device in a mode."""
        device = self._engine.device
        self._mode = mode
        self._times_s: list[float] = []
        self._throttled = device.watch_throttling()
        self._guard: Guard = Guard(device.space)
        if math.isfinite(self._power_w):
            self._guard = PowerGuard(GuardLimits(self._power_w), Ladder(device.space))
        self._guard.hold(mode, device.now())
        self._look_s = device.now()

    def _longest_s(self) -> float:
        """What the next minibatch may take: as expected, until some have shown it."""
        return max(self._times_s[1:][-8:], default=self._expects_s(self._mode))
