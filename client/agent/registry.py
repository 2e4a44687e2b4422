"""The models that are served: taken in, timed, and swapped for newer versions between batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.turns import Service
from powerctl.quantities import spoken
from powerctl.workload import Workload, load_workload
from wattfed.client.agent.engine import Engine
from wattfed.client.agent.models import Model, read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tickets import Ticket

_LOG = logging.getLogger("wattfed.agent")
_WARMUPS, _RUNS = 3, 5  # TorchScript specialises on its first runs


def charged_as(model: str, workload: str) -> Workload:
    """What a model's batches cost as much as: a workload with costs, or its name alone."""
    if not workload:
        return Workload(model, "infer", 1)
    named = load_workload(workload)
    if named.kind != "infer":
        raise InvalidInput(f"model {model}: {workload} is no inference workload")
    return named


class ModelJob:
    """Serves a model: a turn is one batch of its requests, charged as a workload if it has one."""

    def __init__(self, model: Model, workload: str = "") -> None:
        self.name = model.name
        self.model = model
        self._workload = charged_as(model.name, workload)

    def workload(self, size: int) -> Workload:
        """A batch of the model."""
        return self._workload.with_batch_size(self.model.fixed_batch or size)

    def begin(self, tickets: Sequence[Ticket]) -> None:
        """Nothing: `run` follows."""

    def run(self, tickets: Sequence[Ticket]) -> list[tuple[int, tuple[torch.Tensor, ...]]]:
        """Version of the model and outputs, of each ticket."""
        model = self.model  # the same for all of the batch
        outputs = model.predict([ticket.payload for ticket in tickets])
        return [(model.version, values) for values in outputs]

    def ended(self) -> None:
        """Nothing is left to do."""


class Registry:
    """The models of an engine; any thread may ask, loading takes a while.

    Parameters
    ----------
    engine : Engine
        Serves them; must run, because a model is timed on the device between its turns.
    queue_length : int
        Requests that may wait for one model.
    """

    def __init__(self, engine: Engine, queue_length: int = 1024) -> None:
        self._engine = engine
        self._queue_length = queue_length
        self._jobs: dict[str, ModelJob] = {}
        self._files: dict[str, ModelFile] = {}
        self._loading = threading.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, name: str) -> Model:
        """The present version of a model; with an empty name, of the only one."""
        if not name and len(self._jobs) == 1:
            return next(iter(self._jobs.values())).model
        job = self._jobs.get(name)
        if job is None:
            raise UnknownName("model", name, self._jobs, "; see: wattfed-agent status")
        return job.model

    def service(self, name: str) -> Service:
        """How a model is served."""
        return self._engine.service(name)

    def task(self, name: str) -> str:
        """The task that a model's parameters are of; empty if it came with its own network."""
        return self._files[name].task

    def models(self) -> list[Model]:
        """The present version of every model."""
        return [job.model for job in self._jobs.values()]

    def load(self, file: ModelFile) -> Model:
        """Read a model, time its batches and serve it.

        Raises
        ------
        InvalidInput
            If it cannot be read or the name is taken.
        """
        with self._loading:
            if file.name in self._jobs:
                raise InvalidInput(f"there is a model {file.name!r} already: reload it")
            began_s = time.monotonic()
            model = read_model(file)
            self._files[file.name] = file
            service = self._service(file, model)
            _LOG.info(
                "model %s: on %s, read, warmed up and timed in %.3g s",
                *(file.name, model.accelerator.name, time.monotonic() - began_s),
            )
            job = ModelJob(model, file.workload)
            self._engine.add_service(job, service)
            self._jobs[file.name] = job
            return model

    def reload(self, name: str, path: str = "") -> Model:
        """Read the next version of a model and swap it in."""
        model = self.get(name)
        file = self._files[model.name]
        return self.swap(read_model(replace(file, path=path or file.path), model.version + 1))

    def swap(self, model: Model) -> Model:
        """Serve a new version from the next batch on; requests that wait are answered by it.

        Raises
        ------
        InvalidInput
            If its inputs are others: requests that wait would not fit.
        """
        with self._loading:
            present = self.get(model.name)
            if model.inputs != present.inputs or model.fixed_batch != present.fixed_batch:
                shapes = ["+".join(map(str, m.inputs)) for m in (model, present)]
                raise InvalidInput(
                    f"model {model.name}: the new version takes {shapes[0]}, the one that is "
                    f"served {shapes[1]}; load it under another name"
                )
            job = self._jobs[model.name]
            sizes = sorted({model.fixed_batch or 1, self.service(model.name).batch_size})
            for size in sizes * _WARMUPS:
                self._time(model, size)
            self._engine.between_turns(lambda: setattr(job, "model", model)).result()
            return model

    def _service(self, file: ModelFile, model: Model) -> Service:
        time_s: dict[int, float] = {}
        for size in _sizes(file, model):
            times_s = [self._time(model, size) for _ in range(_WARMUPS + _RUNS)][_WARMUPS:]
            time_s[size] = sorted(times_s)[len(times_s) // 2]
            if time_s[size] > file.latency_s:  # a larger batch is of no use
                break
        if min(time_s.values()) >= file.latency_s:
            raise InvalidInput(
                f"model {file.name}: a batch of {min(time_s)} takes "
                f"{spoken(min(time_s.values()), 's')} here, its latency budget is "
                f"{spoken(file.latency_s, 's')}; allow more with latency="
            )
        return Service(
            name=file.name,
            latency_s=file.latency_s,
            batch_size=min(file.batch_size, max(time_s)),
            time_s=time_s,
            capacity=self._queue_length,
        )

    def _time(self, model: Model, size: int) -> float:
        """Seconds of one batch, run between turns: one at a time, so that requests go on."""
        workload = ModelJob(model, self._files[model.name].workload).workload(size)
        run = partial(model.predict, model.example(size))
        execute = partial(self._engine.device.execute, workload, run)
        return float(self._engine.between_turns(execute).result())


def _sizes(file: ModelFile, model: Model) -> list[int]:
    """Batch sizes to time: powers of two up to the largest; the fixed one and 1 if there is one."""
    if model.fixed_batch:
        return sorted({1, model.fixed_batch})
    largest = max(file.largest_batch, file.batch_size)
    powers = [1 << i for i in range(largest.bit_length()) if 1 << i < largest]
    return sorted({*powers, file.batch_size, largest})
