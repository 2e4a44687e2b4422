"""What was measured: epochs, and the runs that they belong to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Annotated, Any

from powerctl.characterization.plan import Cell
from powerctl.fields import Amount, Count, Measured, Positive, Range, Size, build, checked

UNKNOWN = math.nan


@dataclass(frozen=True)
class Epoch:
    """One epoch; NaN stands for what nothing here measures.

    Attributes
    ----------
    seconds : float
        End to end.
    stall_s : float
        Of them, waiting for data: making the iterator and each ``next`` of it, the last included.
    start_s : float
        Of the stall, until the first minibatch was there: workers start, the pipeline fills.
    compute_s : float
        From when a minibatch was there until the device was done with it (copied, computed,
        synchronised).
    stall_p95_s, compute_p95_s : float
        95th percentile over minibatches.
    samples, minibatches : int
        Done; the last minibatch may be smaller.
    cpu_cores : float
        Mean busy cores of the process and its workers, the observer's own share left out.
    gpu_share : float
        Mean load of the GPU, 0 to 1.
    memory_bytes : float
        Most that the process and its workers held, shared pages once.
    read_bytes : float
        What they read from discs, by the kernel's account.
    energy_j : float
        By the device's meter.
    observer_s : float
        Processor seconds that observing took.
    """

    seconds: Positive
    stall_s: Amount
    start_s: Amount
    compute_s: Positive
    samples: Size
    minibatches: Size
    stall_p95_s: Measured = UNKNOWN
    compute_p95_s: Measured = UNKNOWN
    cpu_cores: Measured = UNKNOWN
    gpu_share: Measured = UNKNOWN
    memory_bytes: Measured = UNKNOWN
    read_bytes: Measured = UNKNOWN
    energy_j: Measured = UNKNOWN
    observer_s: Measured = 0.0

    def to_json(self) -> dict[str, Any]:
        """The epoch as logs hold it: null for what is not known."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: None if v != v else v for k, v in values.items()}

    @classmethod
    def from_json(cls, content: Any, where: str) -> Epoch:
        """The epoch of a log; raises `InvalidInput` for a damaged one."""
        found = checked(where, content, Mapping[str, Any])
        return build(cls, {k: UNKNOWN if v is None else v for k, v in found.items()}, where)


@dataclass(frozen=True)
class Metric:
    """A figure of an epoch: its name, what people call it, and how it comes from an epoch.

    `figure` takes the epoch and its number of minibatches, of which a smaller last one is a part.
    """

    name: str
    title: str
    unit: str
    figure: Callable[[Epoch, float], float]


def _compute_rate(epoch: Epoch, minibatches: float) -> float:
    return epoch.samples / epoch.compute_s


METRICS = {
    metric.name: metric
    for metric in (
        Metric("epoch", "epoch, end to end", "s", lambda e, n: e.seconds),
        Metric("stall", "fetch stall a minibatch", "ms", lambda e, n: 1e3 * e.stall_s / n),
        Metric("compute", "compute a minibatch", "ms", lambda e, n: 1e3 * e.compute_s / n),
        Metric("stall-p95", "stall, 95th percentile", "ms", lambda e, n: 1e3 * e.stall_p95_s),
        Metric("compute-p95", "compute, 95th percentile", "ms", lambda e, n: 1e3 * e.compute_p95_s),
        Metric("rate", "samples a second", "1/s", lambda e, n: e.samples / e.seconds),
        Metric("compute-rate", "samples a second of compute", "1/s", _compute_rate),
        Metric("power", "power", "W", lambda e, n: e.energy_j / e.seconds),
        Metric("energy", "energy an epoch", "J", lambda e, n: e.energy_j),
        Metric("sample-energy", "energy a sample", "mJ", lambda e, n: 1e3 * e.energy_j / e.samples),
        Metric("cpu", "busy cores", "", lambda e, n: e.cpu_cores),
        Metric("gpu", "GPU load", "%", lambda e, n: 100 * e.gpu_share),
        Metric("memory", "memory", "MiB", lambda e, n: e.memory_bytes / 2**20),
        Metric("read", "read from disc", "MiB", lambda e, n: e.read_bytes / 2**20),
        Metric("observer", "observer's processor time", "ms", lambda e, n: 1e3 * e.observer_s),
    )
}
FIRST, LATER = "first", "later"


@dataclass(frozen=True)
class Result:
    """A run that was measured: its first epoch, and the later ones."""

    configuration: Cell
    repetition: Count
    epochs: tuple[Epoch, ...]
    seconds: Amount
    """What the run took in all, on the device's clock."""

    def value(self, metric: Metric, when: str) -> float:
        """A metric of the first epoch, or the mean over the later ones."""
        picked: Sequence[Epoch] = self.epochs[:1] if when == FIRST else self.epochs[1:]
        size = self.configuration.batch_size
        return fmean(metric.figure(epoch, epoch.samples / size) for epoch in picked)

    def to_json(self) -> dict[str, Any]:
        """The run as a line of a log holds it."""
        return {
            "configuration": asdict(self.configuration),
            "repetition": self.repetition,
            "seconds": self.seconds,
            "epochs": [epoch.to_json() for epoch in self.epochs],
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> Result:
        """The run of a log line; raises `InvalidInput` for a damaged one."""
        found = checked(where, content, Mapping[str, Any])
        epochs = checked(
            f"{where}: epochs", found.get("epochs"), Annotated[tuple[Any, ...], Range(2, 1e6)]
        )
        read = tuple(Epoch.from_json(each, where) for each in epochs)
        return build(cls, {**found, "epochs": read}, where)
