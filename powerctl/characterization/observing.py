"""Where an epoch's time goes, and what else it uses: processors, memory, GPU and discs.

Processor time and disc reads are counters, read at both ends of an epoch; memory and GPU load are
sampled by a thread, which keeps account of the processor time that it takes itself.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from powerctl.characterization.results import UNKNOWN
from powerctl.errors import DeviceUnavailable, InvalidInput

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_GPU_LOADS = (  # per mille, by release and board
    "devices/gpu.0/load",
    "devices/platform/gpu.0/load",
    "devices/platform/*.gpu/load",
    "devices/*.g[avp]1*b/load",
    "class/devfreq/*/device/load",
)


@dataclass(frozen=True)
class Usage:
    """Of one epoch; NaN for what is not known here. Fields as of `results.Epoch`."""

    cpu_cores: float = UNKNOWN
    gpu_share: float = UNKNOWN
    memory_bytes: float = UNKNOWN
    read_bytes: float = UNKNOWN
    observer_s: float = 0.0


class ResourceObserver:
    """Observes this process and its children while a ``with`` lasts; `usage` says what it saw.

    Parameters
    ----------
    gpu_share : callable, optional
        Reads the GPU's load, 0 to 1.
    period_s : float
        Between two samples of memory and GPU.
    sampling : bool
        False for the counters alone, which cost two reads an epoch.
    """

    def __init__(
        self,
        gpu_share: Callable[[], float] | None = None,
        period_s: float = 0.5,
        sampling: bool = True,
    ) -> None:
        self._gpu_share = gpu_share
        self._period_s = period_s
        self._sampling = sampling
        self._stop = threading.Event()
        self._memory: list[float] = []
        self._loads: list[float] = []
        self._own_s = 0.0
        self.usage = Usage()

    def __enter__(self) -> ResourceObserver:
        self._before = (cpu_seconds(), bytes_read(), time.perf_counter())
        if self._sampling:
            self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._before[2]
        cpu_s = cpu_seconds() - self._before[0] - self._own_s  # a sample that runs now is left in
        if self._sampling:
            self._stop.set()
            self._thread.join()
        self.usage = Usage(
            cpu_cores=max(cpu_s, 0.0) / seconds,
            gpu_share=fmean(self._loads) if self._loads else UNKNOWN,
            memory_bytes=max(self._memory, default=UNKNOWN),
            read_bytes=bytes_read() - self._before[1],
            observer_s=self._own_s,
        )

    def _run(self) -> None:
        while True:
            with suppress(OSError):  # a worker that ends meanwhile
                self._memory.append(memory_bytes())
                if self._gpu_share is not None:
                    self._loads.append(self._gpu_share())
            self._own_s = time.thread_time()
            if self._stop.wait(self._period_s):
                return


def cpu_seconds() -> float:
    """Processor time of this process, of its children that ended, and of those that live."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_child_s, children()))


def bytes_read() -> float:
    """Bytes fetched from block devices for this process and its children; NaN if not accounted.

    A parent's account takes in that of a child when the child has ended (``wait_task_zombie`` of
    the kernel), so the tree's sum only grows.
    """
    try:
        own = _read_bytes(os.getpid())
    except (OSError, KeyError):
        return UNKNOWN
    total = own
    for pid in children():
        with suppress(OSError):  # one that has just ended, or may not be looked at
            total += _read_bytes(pid)
    return total


def memory_bytes() -> float:
    """What this process and its children hold, each shared page once (PSS)."""
    return sum(map(_pss, (os.getpid(), *children())))


def children(pid: int | None = None) -> list[int]:
    """Numbers of all living descendants of a process, by default of this one."""
    return list(_descendants(os.getpid() if pid is None else pid))


def _descendants(pid: int) -> Iterator[int]:
    for file in (_PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):  # a thread or child that has just ended
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)


def _child_s(pid: int) -> float:
    with suppress(OSError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return _TICK_S * sum(map(int, fields[11:13]))
    return 0.0


def _read_bytes(pid: int) -> float:
    lines = (_PROC / str(pid) / "io").read_text().splitlines()
    return float(dict(line.split(": ") for line in lines)["read_bytes"])


def _pss(pid: int) -> float:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * float(line.split()[1])
    return 0.0


def _per_mille(file: Path) -> float:
    return int(file.read_text()) / 1000


def gpu_load(sysfs: Path = Path("/sys")) -> Callable[[], float] | None:
    """What reads the load of a Jetson's GPU, or of the first NVIDIA GPU; None if nothing does."""
    for pattern in _GPU_LOADS:
        for file in sorted(sysfs.glob(pattern)):
            return partial(_per_mille, file)
    from powerctl.devices.meters import nvml_load

    try:
        return nvml_load()
    except DeviceUnavailable:
        return None


@dataclass(frozen=True)
class Timing:
    """Seconds of one epoch; see `powerctl.characterization.results.Epoch`.

    `stalls_s` and `computes_s` are of each minibatch; `start_s` is the first stall with the making
    of the iterator, `end_s` the wait that found no more.
    """

    seconds: float
    start_s: float
    end_s: float
    stalls_s: list[float]
    computes_s: list[float]
    samples: int

    @property
    def stall_s(self) -> float:
        """Seconds of an epoch in which it waited for data."""
        return self.start_s + sum(self.stalls_s[1:]) + self.end_s

    @property
    def compute_s(self) -> float:
        """Seconds of an epoch in which the device computed."""
        return sum(self.computes_s)


def timed_epoch(
    loader: Iterable[Any],
    step: Callable[[Any], int],
    synchronise: Callable[[], None],
    clock: Callable[[], float] = perf_counter,
) -> Timing:
    """Run one epoch and attribute its time.

    Parameters
    ----------
    loader : iterable
        Of minibatches; making its iterator is part of the epoch.
    step : callable
        Moves a minibatch to the device and computes on it; gives its number of samples.
    synchronise : callable
        Returns when the device has done all that was launched on it.
    clock : callable
        Seconds.
    """
    stalls, computes = [], []
    samples = 0
    synchronise()
    began = mark = clock()
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            break
        fetched = clock()
        stalls.append(fetched - mark)
        samples += step(batch)
        synchronise()
        mark = clock()
        computes.append(mark - fetched)
    end = clock()
    if not stalls:
        raise InvalidInput("the data set is empty: an epoch had no minibatch")
    return Timing(end - began, stalls[0], end - mark, stalls, computes, samples)
