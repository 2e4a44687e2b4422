"""Learning in idle time: modes of a task are measured while nobody else has use for the device.

It goes behind requests, which the engine gives their turns, and behind rounds, for which it makes
way. What is measured is on disc at once, so that it goes on where it was, whatever has ended it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from powerctl.errors import PowerctlError
from powerctl.modes import FloatArray, ModeArrays, PowerMode
from powerctl.profiler import Step, measure_mode
from powerctl.quantities import spoken
from powerctl.reading import in_line
from powerctl.task.measuring import Repeated
from powerctl.task.process_memory import give_back
from powerctl.task.training import Interrupted
from powerctl.workload import Workload
from wattfed.client.agent.idle_device import (
    BudgetSpent,
    IdleBudget,
    IdleDevice,
    ServiceRoom,
    TooMuchPower,
)
from wattfed.client.agent.idle_modes import PROCEDURE, longest_s, modes_to_measure
from wattfed.client.agent.idle_task import IdleTask
from wattfed.client.agent.settings import IdleSettings
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.measured_task import MeasuredRow, MeasuredTask

_LOG = logging.getLogger("wattfed.agent")
_POLL_S = 0.5
_REST_S = 10.0  # after something was in the way, before the next try
_FAILED_REST_S = 600.0
_LOOK_AGAIN_S = 60.0  # where nothing is left to be measured: work may change
_CLOSING_S = 5.0


class IdleLearner:
    """Measures a task of the agent's settings, in a thread of its own.

    Parameters
    ----------
    engine : TurnEngine
        Gives the turns.
    costs : CostModels
        Keeps what is measured, and predicts.
    settings : IdleSettings
        Budgets.
    task : callable
        Loads and counts what is measured; the first time that there is time for it.

    Attributes
    ----------
    doing : str
        What it does now, or waits for, in words.
    measured : MeasuredTask or None
        What it has come to know, once the task is loaded.
    """

    def __init__(
        self,
        engine: TurnEngine,
        costs: CostModels,
        settings: IdleSettings,
        task: Callable[[], IdleTask],
    ) -> None:
        self.doing = "waits for idle time"
        self.measured: MeasuredTask | None = None
        self._engine = engine
        self._costs = costs
        self._settings = settings
        self._load = task
        self._power_w = settings.power_w or math.inf
        self._task: IdleTask | None = None
        self._step: Repeated | None = None
        self._is_warm = False
        self._peaks_hz: dict[str, float] = {}
        self._closed = threading.Event()
        self._rounds = 0
        self._changing = threading.Lock()
        self._device: IdleDevice | None = None
        self._has_device = threading.Lock()  # while the mode may be another than the one found
        self._seen: tuple[int, float] = (-1, 0.0)  # turns of others, and since when so many
        self._thread = threading.Thread(target=self._run, name="idle learner", daemon=True)

    def start(self) -> None:
        """Begin to look for idle time."""
        self._thread.start()

    def close(self) -> None:
        """End after the running minibatch and bring the mode back, while the engine still runs."""
        self._closed.set()
        self._interrupt("the agent stops")
        if self._thread.is_alive():
            self._thread.join(_CLOSING_S)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stay away from the device: a round has it. Waits for the mode to be brought back."""
        with self._changing:
            self._rounds += 1
        try:
            self._interrupt("a round")
            with self._has_device:
                pass
            yield
        finally:
            with self._changing:
                self._rounds -= 1

    def _interrupt(self, why: str) -> None:
        device = self._device
        if device is not None:
            device.interrupt(why)

    # The thread

    def _run(self) -> None:
        rest_s = 0.0
        while not self._closed.wait(max(_POLL_S, rest_s)):
            rest_s = 0.0
            if not self._is_idle():
                continue
            try:
                rest_s = self._session()
            except BudgetSpent:
                pass  # which the next session says
            except Interrupted as why:
                self.doing = f"waits: {why}"
                rest_s = 0.0 if self._rounds else _REST_S
            except Exception as error:  # a task or a device that fails: rounds will say so too
                self._fail(error)
                rest_s = _FAILED_REST_S
            if self._rounds:
                self._unload()
        self._unload()

    def _is_idle(self) -> bool:
        """Whether no round trains, and nobody else has had a turn for a while.

        Once the task is warm, requests are not in the way: each of its minibatches can be put
        between them.
        """
        jobs = self._engine.state().jobs
        others = [job for job in jobs if job.is_training or not self._is_warm]
        turns, now_s = (
            sum(job.account.turns + job.account.arrived for job in others),
            time.monotonic(),
        )
        if turns != self._seen[0] or self._rounds:
            self._seen = (turns, now_s)
        if self._rounds:
            self.doing = "waits: a round"
        elif now_s - self._seen[1] < self._settings.quiet_s:
            self.doing = f"waits for {self._settings.quiet_s:g} s in which nobody has a turn"
        return not self._rounds and now_s - self._seen[1] >= self._settings.quiet_s

    def _session(self) -> float:
        """Measure a few modes; how long to rest then."""
        with self._has_device:
            if self._rounds:
                return 0.0
            task, measured = self._loaded()
        left = self._left(measured)
        if left.time_s <= 0 or left.energy_j <= 0:
            self.doing = f"has spent its budget: {_spent(measured)}"
            return _LOOK_AGAIN_S
        engine = self._engine
        space, room = engine.device.space, ServiceRoom(engine, self._peaks_hz)
        predicted = self._costs.predictor(engine.device.board, task.workload).predict(space.arrays)
        modes = modes_to_measure(
            measured,
            space,
            predicted,
            self._settings.modes,
            self._power_w,
            room.fits if room.services else None,
        )
        if not modes:
            n = _of_idle_time(measured)
            why = (
                ""
                if n >= self._settings.modes
                else "; no other fits beside its requests and limits"
            )
            self.doing = f"has measured {n} modes in {_spent(measured)}{why}"
            return _LOOK_AGAIN_S
        with self._has_device:
            if not self._rounds:
                self._measure(task.workload, measured, modes, longest_s(predicted), left)
        return 0.0

    def _loaded(self) -> tuple[IdleTask, MeasuredTask]:
        """The task, its data and a model of its own, loaded if they are not."""
        if self._task is None:
            self.doing = "loads and counts its task"
            self._task = self._load()
        if self.measured is None:
            board = self._engine.device.board
            self.measured = self._costs.measured(board, self._task.workload)
        return self._task, self.measured

    def _measure(
        self,
        workload: Workload,
        measured: MeasuredTask,
        modes: Sequence[PowerMode],
        longest: FloatArray,
        left: IdleBudget,
    ) -> None:
        """Measure some modes one after another, and give the device back as it was found."""
        space = self._engine.device.space

        def expects_s(mode: PowerMode) -> float:
            (at,) = space.indices(ModeArrays.of([mode]))
            return float(longest[at] if at >= 0 else longest.max())

        if self._step is None:
            assert self._task is not None
            self._step = self._task.step()
        device = IdleDevice(
            *(self._engine, workload, expects_s, left, self._power_w),
            peaks_hz=self._peaks_hz,
            is_cold=not self._is_warm,
        )
        self._device = device
        account = _Account(device, measured)
        try:
            for mode in modes:
                if self._rounds or self._closed.is_set():
                    return
                n = _of_idle_time(measured)
                self.doing = f"measures mode {mode}, {n + 1} of {self._settings.modes}"
                row = self._row(device, workload, mode, self._step)
                device.restore()  # before the fit, which keeps this process busy
                measured.record([row])
                account.keep()
        finally:
            self._device = None
            device.restore()
            device.close()
            account.keep()
            self._is_warm = self._is_warm or device.now() > 0

    def _row(
        self, device: IdleDevice, workload: Workload, mode: PowerMode, step: Step
    ) -> MeasuredRow:
        """What a mode takes; of one that draws too much, what was seen until then."""
        try:
            seen = measure_mode(device, workload, mode, PROCEDURE, step)
            device.look()
            found = (seen.time_s, seen.power_w, seen.n_minibatches)
        except TooMuchPower as over:
            _LOG.warning("idle time: mode %s drew %.3g W, and was left", mode, over.power_w)
            found = (over.time_s, over.power_w, over.minibatches)
        return MeasuredRow(mode.values, *found, "idle", time.time())

    def _left(self, measured: MeasuredTask) -> IdleBudget:
        """What is left of the budgets."""
        spent, settings = measured.read(), self._settings
        return IdleBudget(settings.time_s - spent.spent_s, settings.energy_j - spent.spent_j)

    def _fail(self, error: Exception) -> None:
        self.doing = f"has failed, and tries again later: {in_line(error, 200)}"
        if isinstance(error, PowerctlError):
            _LOG.warning("idle time: %s", error)
        else:
            _LOG.warning("measuring in idle time has failed", exc_info=error)
        self._unload()

    def _unload(self) -> None:
        """Let go of model and data: a round may need the memory."""
        step, self._step = self._step, None
        if step is not None:
            step.close()
            give_back()


class _Account:
    """Writes down what a device of idle time has spent since it was written last."""

    def __init__(self, device: IdleDevice, measured: MeasuredTask) -> None:
        self._device = device
        self._measured = measured
        self._kept = (0.0, 0.0)

    def keep(self) -> None:
        now = (self._device.now(), self._device.energy_j())
        time_s, energy_j = (a - b for a, b in zip(now, self._kept, strict=True))
        if time_s > 0:
            self._measured.spend(time_s, max(0.0, energy_j))
        self._kept = now


def _of_idle_time(measured: MeasuredTask) -> int:
    """How many modes were measured in idle time."""
    return sum(row.origin == "idle" for row in measured.read().rows)


def _spent(measured: MeasuredTask) -> str:
    table = measured.read()
    return f"{spoken(table.spent_s, 's')} and {spoken(table.spent_j, 'J')}"
