"""The local training loop: minibatch by minibatch, in the planned modes, inside its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.tasks.task import Samples
from powerctl.device import Device
from powerctl.modes import PowerMode
from powerctl.rounds import RoundPlan
from powerctl.workload import Workload

SETTLED_S = 3.0  # power has settled this long after a change (PowerTrain, section 3)
POWER_WINDOW_S = 1.0  # the rate at which jtop and tegrastats sample the module's power
MARGIN = 0.25  # three deviations of a minibatch's energy: unit, mode and noise together


class Interrupted(Exception):
    """A device runs no more minibatches of this round; the message says why, in a word."""


@dataclass
class LocalTraining:
    """SGD on local samples, one minibatch per step, endlessly.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    samples : Samples
        The client's own.
    batch_size : int
        The last minibatch of an epoch may be smaller.
    learning_rate : float
        Of SGD with momentum 0.9.
    generator : torch.Generator
        Shuffles each epoch.
    proximal_mu : float
        FedProx's pull to the global model, mu / 2 |w - w_global|^2; 0 for none.
    """

    model: nn.Module
    samples: Samples
    batch_size: int
    learning_rate: float
    generator: torch.Generator
    proximal_mu: float = 0.0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.train()
        self._global = [p.detach().clone() for p in self.model.parameters()]
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=self.learning_rate, momentum=0.9
        )

    def steps(self) -> Iterator[Callable[[], None]]:
        """One callable per minibatch."""
        while True:
            order = torch.randperm(len(self.samples), generator=self.generator)
            for picks in order.split(self.batch_size):
                batch = self.samples.take(picks)
                yield lambda batch=batch: self._step(batch)

    def _step(self, batch: Samples) -> None:
        self._optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(batch.inputs), batch.labels)
        self.losses.append(loss.item())
        (loss + self._proximal()).backward()
        self._optimizer.step()

    def _proximal(self) -> Tensor | float:
        if not self.proximal_mu:
            return 0.0
        pairs = zip(self.model.parameters(), self._global, strict=True)
        return self.proximal_mu / 2 * sum(((p - g) ** 2).sum() for p, g in pairs)


@dataclass(frozen=True)
class SegmentResult:
    """What one mode of a plan really took: minibatches done, and the mean seconds of one.

    `settled_power_w` is the mean power after settling; NaN if the segment was too short for it.
    """

    mode: PowerMode
    minibatches: int
    minibatch_s: float
    settled_power_w: float


@dataclass(frozen=True)
class Execution:
    """What the execution of a plan took, mode changes included.

    `peak_power_w` is the highest mean over a second; `stopped` is empty, ``"deadline"``,
    ``"energy"``, or why the device was taken away.
    """

    segments: tuple[SegmentResult, ...]
    time_s: float
    energy_j: float
    peak_power_w: float
    stopped: str

    @property
    def minibatches(self) -> int:
        """Minibatches done."""
        return sum(segment.minibatches for segment in self.segments)


def execute_plan(
    device: Device,
    workload: Workload,
    plan: RoundPlan,
    steps: Iterator[Callable[[], None]],
    *,
    time_limit_s: float = math.inf,
    energy_cap_j: float = math.inf,
    progress: Callable[[PowerMode, float, float], None] | None = None,
) -> Execution:
    """Train as planned, and stop before a minibatch that might overrun time or energy.

    Parameters
    ----------
    device : Device
        Executes the minibatches; left in the mode it was found in.
    workload : Workload
        What a minibatch is charged as.
    plan : RoundPlan
        Modes and minibatches in each.
    steps : iterator of callable
        The learning of one minibatch each.
    time_limit_s, energy_cap_j : float
        Never exceeded as long as no minibatch costs more than `MARGIN` above what was expected
        and above the dearest one so far.
    progress : callable, optional
        Told of the mode, and of time and energy so far, after each minibatch.
    """
    meter = _Meter(device)
    results = []
    stopped = ""
    try:
        for segment in plan.segments:
            device.apply(segment.mode)
            meter.start_segment()
            most_s, most_j = segment.time_s * (1 + MARGIN), segment.energy_j * (1 + MARGIN)
            busy_s, done = 0.0, 0
            while done < segment.minibatches and not stopped:
                if meter.time_s + most_s > time_limit_s:
                    stopped = "deadline"
                elif meter.energy_j + most_j > energy_cap_j:
                    stopped = "energy"
                else:
                    before_j = meter.energy_j
                    try:
                        took_s = device.execute(workload, next(steps))
                    except Interrupted as why:
                        stopped = str(why)
                        break
                    meter.tick()
                    most_s, most_j = max(most_s, took_s), max(most_j, meter.energy_j - before_j)
                    busy_s, done = busy_s + took_s, done + 1
                    if progress is not None:
                        progress(segment.mode, meter.time_s, meter.energy_j)
            if done:
                power_w = meter.settled_power_w()
                results.append(SegmentResult(segment.mode, done, busy_s / done, power_w))
        peak_w = meter.peak_power_w()
        return Execution(tuple(results), meter.time_s, meter.energy_j, peak_w, stopped)
    finally:
        device.restore()


class _Meter:
    """Time, energy, and power over windows, of a device since the meter was made."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = (device.now(), device.energy_j())
        self._peak_w = 0.0
        self.start_segment()

    @property
    def time_s(self) -> float:
        return self._device.now() - self._start[0]

    @property
    def energy_j(self) -> float:
        return self._device.energy_j() - self._start[1]

    def start_segment(self) -> None:
        """Start the windows anew: a mode has just been applied."""
        self._segment_s = self.time_s
        self._window = (self.time_s, self.energy_j)
        self._settled: tuple[float, float] | None = None

    def tick(self) -> None:
        """A minibatch has ended."""
        now = (self.time_s, self.energy_j)
        if self._settled is None and now[0] - self._segment_s >= SETTLED_S:
            self._settled = now
        if now[0] - self._window[0] >= POWER_WINDOW_S:
            self._peak_w = max(self._peak_w, _mean_power_w(self._window, now))
            self._window = now

    def settled_power_w(self) -> float:
        """Mean power of the segment since it settled; NaN if that is less than a window."""
        now = (self.time_s, self.energy_j)
        if self._settled is None or now[0] - self._settled[0] < POWER_WINDOW_S:
            return math.nan
        return _mean_power_w(self._settled, now)

    def peak_power_w(self) -> float:
        """The highest mean over a window; over all the time if that was shorter than one."""
        if not self._peak_w and self.time_s > 0:
            return self.energy_j / self.time_s
        return self._peak_w


def _mean_power_w(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])
