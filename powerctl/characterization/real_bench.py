"""The real bench: torch's own DataLoader and training step, on this machine or a Jetson."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from powerctl.accelerator import Accelerator, synchronise
from powerctl.characterization.observing import (
    ResourceObserver,
    Timing,
    Usage,
    gpu_load,
    timed_epoch,
)
from powerctl.characterization.page_cache import cache_method, empty_cache
from powerctl.characterization.places import AtPlace, open_place
from powerctl.characterization.plan import Cell, Level
from powerctl.characterization.results import UNKNOWN, Epoch
from powerctl.characterization.steps import Step
from powerctl.errors import InvalidInput
from powerctl.task.arguments import parameters_of
from powerctl.task.data import load_data
from powerctl.task.loading import Task
from powerctl.task.measuring import alone_given

_WARM_UP = 3  # minibatches before the first epoch: kernel selection can take many seconds
_PROBED_SAMPLES = 32
_WORKER_START_S = 0.15  # of an epoch with workers; only the expectation uses it


class RealBench(AtPlace):
    """Runs a task's minibatches and times them.

    Parameters
    ----------
    task : Task
        What runs.
    device : str
        ``here`` or ``jetson``.
    samples : int, optional
        So many of the data set make an epoch; by default all.
    empty : str
        How the page cache is emptied, see `page_cache.cache_method`.
    seed : int
        Of weights, and of the order of samples.
    """

    is_virtual = False

    def __init__(
        self,
        task: Task,
        device: str = "here",
        *,
        samples: int | None = None,
        empty: str = "auto",
        seed: int = 0,
    ) -> None:
        self.task = task
        self._there = Accelerator.here()
        self.device = self._there.device
        self._samples = samples
        self._seed = seed
        self._cache = cache_method(empty)
        self._gpu_load = gpu_uuid = None
        if self._there.is_gpu:
            self._gpu_load = gpu_load()
            gpu_uuid = str(torch.cuda.get_device_properties(self.device).uuid)
        self._place = open_place(device, self.device.type, gpu_uuid)
        self._given_loader = cache(self._loader_of)
        self._dataset = cache(self._load)
        storages = tuple(getattr(task.own, "storages", ("",)))
        self._probe: dict[tuple[Any, ...], float] = {}
        self.baseline = Cell(storage=storages[0])
        self.levels: dict[str, Sequence[Level]] = {
            "workers": (0, 1, 2, 4),
            "prefetch": (1, 2, 4),
            "storage": storages,
            "batch": (4, 16, 64, 128),
            "observer": (True, False),
            "infer-batch": (1, 16, 64),
        }
        if device == "jetson":
            self.levels["mode"] = self.mode_levels("presets")
        self.name = f"{task.name} on {_machine()}"

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """Of machine, software, data, and how it is measured."""
        data = self._dataset(self.baseline.storage)
        return {
            "task": self.task.name,
            "machine": _machine(),
            "software": f"torch {torch.__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.release()}",
            "compute": self._compute(),
            "samples of an epoch": f"{len(data)}",
            "page cache": {
                "drop": "dropped before each run (/proc/sys/vm/drop_caches)",
                "advise": "the data set's files are put out of it before each run (posix_fadvise)",
                "keep": "kept: first epochs are not cold",
            }[self._cache],
            "energy": self._place.energy_source,
        }

    def check(self, configuration: Cell) -> None:
        """Raise for a mode or storage that there is not; writes the samples if need be."""
        self._place.check(configuration.mode)
        self._dataset(configuration.storage)

    def expected_s(self, configuration: Cell, epochs: int) -> float:
        """From timing a few samples and minibatches, in the mode found and with files cached."""
        n = len(self._dataset(configuration.storage))
        load_s = n * self._load_s(configuration.storage)
        compute_s = n * self._compute_s(configuration.kind, configuration.batch_size)
        workers, cores = configuration.workers, len(os.sched_getaffinity(0))
        warm_up_s = _WARM_UP * compute_s * configuration.batch_size / n
        if workers == 0:
            return warm_up_s + epochs * (load_s + compute_s)
        epoch_s = max(compute_s, load_s / min(workers, cores))
        if self.device.type == "cpu":  # which the workers share
            epoch_s = max(epoch_s, (load_s + compute_s) / cores)
        return warm_up_s + epochs * (epoch_s + _WORKER_START_S)

    def run(self, configuration: Cell, repetition: int, epochs: int) -> tuple[Epoch, ...]:
        """Run epochs, the first from a cold page cache."""
        self._place.apply(configuration.mode)
        dataset = self._dataset(configuration.storage)
        with closing(self._step(configuration)) as step:
            return self._epochs(dataset, step, configuration, repetition, epochs)

    def _epochs(
        self, dataset: Any, step: Step, configuration: Cell, repetition: int, epochs: int
    ) -> tuple[Epoch, ...]:
        self._warm_up(dataset, step, configuration)
        files = dataset.dataset if isinstance(dataset, Subset) else dataset
        empty_cache(self._cache, files.files() if hasattr(files, "files") else ())
        with warnings.catch_warnings():  # more workers than cores are what is studied
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = self._loader(dataset, configuration, repetition)
            return tuple(self._epoch(loader, step, configuration.observer) for _ in range(epochs))

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def _epoch(self, loader: DataLoader[Any], step: Step, sampling: bool) -> Epoch:
        observer = ResourceObserver(self._gpu_load, sampling=sampling)
        before_j = self._place.energy_j()
        with observer:
            timing = timed_epoch(loader, step, synchronise)
        energy_j = self._place.energy_j() - before_j
        if timing.seconds < 2 * self._place.period_s:
            energy_j = UNKNOWN  # the meter cannot tell so short a time
        return _epoch_of(timing, observer.usage, energy_j)

    def _loader_of(self, storage: str) -> DataLoader[Any]:
        """The task's own loader, whose data set and collation are used with every setting."""
        load, name = self.task.functions["load_data"], self.task.called("load_data")
        takes_storage = "storage" in {p.name for p in parameters_of(load, name)}
        if storage and not takes_storage:
            raise InvalidInput(f"{name} takes no storage, and so cannot load from {storage!r}")
        given = {**alone_given(self.task), "storage": storage, "batch_size": _PROBED_SAMPLES}
        loader = load_data(self.task, given).train
        if not isinstance(loader, DataLoader) or not hasattr(loader.dataset, "__getitem__"):
            raise InvalidInput(
                f"{name} returned a {type(loader).__name__}: expected a DataLoader over a data "
                "set with a length, whose workers and batch size can be varied"
            )
        return loader

    def _load(self, storage: str) -> Any:
        dataset: Any = self._given_loader(storage).dataset
        if self._samples is None or self._samples >= len(dataset):
            return dataset
        return Subset(dataset, range(self._samples))

    def _loader(self, dataset: Any, how: Cell, repetition: int) -> DataLoader[Any]:
        order = torch.Generator().manual_seed(1000 * self._seed + repetition)
        ahead: dict[str, Any] = {"prefetch_factor": how.prefetch} if how.workers else {}
        return DataLoader(
            dataset,
            batch_size=how.batch_size,
            shuffle=True,
            generator=order,
            num_workers=how.workers,
            pin_memory=self._there.is_gpu,
            collate_fn=self._given_loader(how.storage).collate_fn,
            **ahead,
        )

    def _step(self, how: Cell) -> Step:
        loader = self._given_loader(how.storage)
        return Step(self.task, how.kind, loader, self.device, self._seed)

    def _warm_up(self, dataset: Any, step: Step, how: Cell) -> None:
        batch = self._batch(how, how.batch_size)
        for _ in range(_WARM_UP):
            step(batch)
        synchronise()

    def _batch(self, how: Cell, size: int) -> Any:
        """A minibatch of the first samples, again from the beginning where there are too few."""
        dataset = self._dataset(how.storage)
        samples = [dataset[i % len(dataset)] for i in range(size)]
        return self._given_loader(how.storage).collate_fn(samples)

    def _compute(self) -> str:
        if self._there.is_gpu:
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {torch.get_num_threads()} threads"

    def _load_s(self, storage: str) -> float:
        """Seconds to load one sample, its file cached."""
        key = ("load", storage)
        if key not in self._probe:
            dataset = self._dataset(storage)
            picks = np.linspace(0, len(dataset) - 1, min(_PROBED_SAMPLES, len(dataset))).astype(int)
            for _ in range(2):  # the first is cold
                began = time.perf_counter()
                self._given_loader(storage).collate_fn([dataset[int(i)] for i in picks])
                self._probe[key] = (time.perf_counter() - began) / len(picks)
        return self._probe[key]

    def _compute_s(self, kind: str, batch_size: int) -> float:
        """Seconds to compute on one sample."""
        key = ("compute", kind, batch_size)
        if key not in self._probe:
            how = replace(self.baseline, kind=kind)
            batch = self._batch(how, batch_size)
            took_s = []
            with closing(self._step(how)) as step:
                for _ in range(_WARM_UP):  # the fastest: the first prepares, others are disturbed
                    began = time.perf_counter()
                    step(batch)
                    synchronise()
                    took_s.append(time.perf_counter() - began)
            self._probe[key] = min(took_s) / batch_size
        return self._probe[key]


def _epoch_of(timing: Timing, usage: Usage, energy_j: float) -> Epoch:
    return Epoch(
        seconds=timing.seconds,
        stall_s=timing.stall_s,
        start_s=timing.start_s,
        compute_s=timing.compute_s,
        samples=timing.samples,
        minibatches=len(timing.stalls_s),
        stall_p95_s=float(np.percentile(timing.stalls_s, 95)),
        compute_p95_s=float(np.percentile(timing.computes_s, 95)),
        cpu_cores=usage.cpu_cores,
        gpu_share=usage.gpu_share,
        memory_bytes=usage.memory_bytes,
        read_bytes=usage.read_bytes,
        energy_j=energy_j,
        observer_s=usage.observer_s,
    )


def _machine() -> str:
    model = Path("/proc/device-tree/model")
    if model.exists():
        return model.read_text(errors="replace").rstrip("\0\n")
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"
