"""Inference beside training on a simulated device: which modes keep the latency, and the turns.

Fulcrum's problem `Concurrent` says in which modes a batch of requests is answered in time although
it may find a minibatch running; what the batches leave of the time is the training's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from powerctl.device import Device, DeviceWrapper
from powerctl.fulcrum.plans import SAFETY_DEVIATIONS, FixedMode, Front, front_within
from powerctl.fulcrum.problems.sharing import Concurrent
from powerctl.modes import FloatArray, ModeArrays, PowerMode
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import Workload, load_workload
from wattfed.client.worker.mode_options import Learned, ModeOptions, mode_options

MARGIN = 0.25  # on predicted times: three deviations of unit, mode and noise together
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_LEAST_CYCLES = 2.0  # within the budget, to plan for: rarer requests are answered one by one


@dataclass(frozen=True)
class RequestStream:
    """Requests that come to a device evenly spaced, and are answered in batches.

    Attributes
    ----------
    workload : Workload
        One batch of it answers as many requests as it has samples.
    rate_hz : float
        Requests in a second.
    latency_s : float
        Budget of a request.
    """

    workload: Workload
    rate_hz: float
    latency_s: float


def service_of(workload: str, rate_hz: float, latency_s: float) -> RequestStream:
    """The service of a client by the columns of its fleet."""
    if not rate_hz:
        return NO_SERVICE
    return RequestStream(load_workload(workload), rate_hz, latency_s)


NO_SERVICE = RequestStream(load_workload("mobilenetv3-infer"), 0.0, math.inf)


@dataclass(frozen=True)
class TrainingOptions:
    """What a device can choose from for training while it serves.

    Times are those in which a minibatch gets done, the batches between them included; energies are
    the training's alone.

    Attributes
    ----------
    front : Front
        Modes in which every request is answered in time, within the power limit.
    maxn, preset : FixedMode
        MAXN, and the preset for the power limit, whether or not requests are answered in time.
    service : RequestStream
        What it serves.
    batch_size : mapping of PowerMode to int
        Requests answered together in each mode.
    """

    front: Front
    maxn: FixedMode
    preset: FixedMode
    service: RequestStream
    batch_size: Mapping[PowerMode, int]

    def on(self, device: Device) -> tuple[Device, ServedRequests]:
        """The device as training sees it, which serves from now on, and what it has served."""
        if not self.service.rate_hz:
            return device, ServedRequests()
        serving = ServingDevice(device, self.service, self.batch_size)
        return serving, serving.served


@lru_cache(maxsize=4096)
def training_options(
    options: ModeOptions, service: RequestStream, learned: Learned, power_limit_w: float
) -> TrainingOptions:
    """The options of a unit that serves, or has nothing to serve.

    Shared by all units that have learned the same and serve alike: most of a fleet have learned
    nothing yet.

    Parameters
    ----------
    options : ModeOptions
        For training alone.
    service : RequestStream
        What it serves.
    learned : Learned
        What the unit has learned of itself: its factors hold for both workloads.
    power_limit_w : float
        Bound of the power of both.
    """
    if not service.rate_hz:
        front = options.front(learned, power_limit_w)
        held = options.maxn_and_preset(learned, power_limit_w)
        return TrainingOptions(front, *held, service, batch_size={})
    maxn, preset = (held.mode for held in options.maxn_and_preset(learned, power_limit_w))
    modes, expected = _expected(options, service.workload, maxn, preset)
    planned_hz = max(service.rate_hz, _LEAST_CYCLES / service.latency_s)
    sizes = tuple(size for size in BATCH_SIZES if size / planned_hz < service.latency_s)
    both = options.of_unit(learned, Prediction(*(c[:, : 1 + len(sizes)] for c in expected)))
    problem = Concurrent(power_limit_w, planned_hz, service.latency_s, sizes)
    judged = problem.evaluate(both.time_s * (1 + MARGIN), both.power_bound_w(SAFETY_DEVIATIONS))
    feasible, excess = judged.feasible[:, ::-1], judged.excess[:, ::-1]  # smallest batch first
    train_s, train_j = both.time_s[:, 0], both.energy_j[:, 0]
    time_s = _time_s(train_s, both.time_s[:, 1:], np.array(sizes) / service.rate_hz)
    best = np.where(
        feasible.any(axis=1),
        np.where(feasible, time_s, np.inf).argmin(axis=1),
        excess.argmin(axis=1),
    )
    time_s = time_s[np.arange(len(best)), best]
    keeps = np.flatnonzero(feasible[:-1].any(axis=1))  # a preset may be worse than all others
    certain = np.zeros(len(keeps))
    kept = modes.take(keeps)
    mean_w = train_j[keeps] / time_s[keeps]
    batch_size = dict(zip(kept.objects(), np.array(sizes)[best[keeps]].tolist(), strict=True))
    return TrainingOptions(
        front=front_within(kept, Prediction(time_s[keeps], mean_w, certain, certain), np.inf),
        maxn=FixedMode(maxn, float(time_s[0]), float(train_j[0])),
        preset=FixedMode(preset, float(time_s[-1]), float(train_j[-1])),
        service=service,
        batch_size={maxn: sizes[best[0]], **batch_size, preset: sizes[best[-1]]},
    )


@lru_cache(maxsize=64)
def _expected(
    options: ModeOptions, infer: Workload, maxn: PowerMode, preset: PowerMode
) -> tuple[ModeArrays, Prediction]:
    """The modes that are worth trying, and what is expected of any unit in each of them.

    Of a minibatch of the training, then of a batch of each size; arrays of shape
    (n_modes, 1 + n_sizes).
    """
    modes = _worth_trying(options, infer, maxn, preset)
    predictors = [
        SignaturePredictor(options.board, infer.with_batch_size(size)) for size in BATCH_SIZES
    ]
    expected = [predictor.expected(modes) for predictor in (options.predictor, *predictors)]
    columns = zip(*expected, strict=True)
    return modes, Prediction(*(np.stack(column, axis=1) for column in columns))


def _time_s(train_s: FloatArray, infer_s: FloatArray, cycle_s: FloatArray) -> FloatArray:
    """Seconds in which a minibatch gets done, shape (n_modes, n_sizes).

    A batch goes first when it is full, and a minibatch follows every batch: where batches fill
    faster than that, the two alternate.
    """
    share = np.maximum(1 - infer_s / cycle_s, 1e-9)
    return np.minimum(train_s[:, None] / share, train_s[:, None] + infer_s)


def _worth_trying(
    options: ModeOptions, infer: Workload, maxn: PowerMode, preset: PowerMode
) -> ModeArrays:
    """MAXN, the modes that are worth choosing for one of the workloads alone, and the preset."""
    alone = mode_options(SignaturePredictor, options.board, options.space, infer).modes
    both = np.concatenate([np.stack(m, axis=1) for m in (options.modes, alone)])
    others = np.unique(both[(both != maxn.values).any(axis=1)], axis=0)
    return ModeArrays(*np.concatenate([[maxn.values], others, [preset.values]]).T)


@dataclass
class ServedRequests:
    """What a device has served beside a training; nothing, where no requests come.

    Attributes
    ----------
    budget_s : float
        Latency that a request may have.
    latencies_s : list of float
        Of the oldest request of each batch.
    energy_j : float
        Of the batches.
    """

    budget_s: float = math.inf
    latencies_s: list[float] = field(default_factory=list)
    energy_j: float = 0.0

    def report(self) -> dict[str, float]:
        """What the report of a round says of it."""
        latencies_s = self.latencies_s
        return {
            "inference_p99_s": float(np.percentile(latencies_s, 99)) if latencies_s else 0.0,
            "inference_budget_s": self.budget_s,
            "inference_energy_j": self.energy_j,
        }


class ServingDevice(DeviceWrapper):
    """A simulated device that serves between the minibatches of a training.

    Time is all of it; energy is the training's own, that of the module is `module`'s.

    Parameters
    ----------
    device : Device
        Runs both.
    service : RequestStream
        Requests, from now on.
    batch_size : mapping of PowerMode to int
        As in `TrainingOptions`; in other modes as the lowest of them.

    Attributes
    ----------
    served : ServedRequests
        What it has served so far.
    """

    def __init__(
        self, device: Device, service: RequestStream, batch_size: Mapping[PowerMode, int]
    ) -> None:
        super().__init__(device)
        self.served = ServedRequests(service.latency_s)
        self._gap_s = 1 / service.rate_hz
        self._batch_size, sizes = batch_size, set(batch_size.values())
        self._least_size = min(sizes)
        self._batches = {size: service.workload.with_batch_size(size) for size in sizes}
        self._oldest_s = device.now()

    @property
    def module(self) -> Device:
        """The device that runs both, whose energy is that of both."""
        return self.device

    def execute(self, workload: Workload, step: Callable[[], None] | None = None) -> float:
        """Answer a batch if one is full, then run the minibatch; returns its own seconds."""
        size = self._batch_size.get(self.device.mode(), self._least_size)
        if self.device.now() >= self._oldest_s + (size - 1) * self._gap_s:
            before_j = self.device.energy_j()
            self.device.execute(self._batches[size])
            self.served.energy_j += self.device.energy_j() - before_j
            self.served.latencies_s.append(self.device.now() - self._oldest_s)
            self._oldest_s += size * self._gap_s
        return self.device.execute(workload, step)

    def energy_j(self) -> float:
        """Joules without those of the batches."""
        return self.device.energy_j() - self.served.energy_j
