"""The models that are served: taken in, timed, and swapped for newer versions between batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from powerctl.accelerator import Accelerator
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.turns import ServiceSpec
from powerctl.quantities import spoken
from powerctl.workload import Workload, load_workload
from wattfed.client.agent.engine_jobs import Broken, EngineJob, Ticket
from wattfed.client.agent.model_host import Hosting, ModelFailed
from wattfed.client.agent.served_models import Model, read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.turn_engine import TurnEngine

_LOG = logging.getLogger("wattfed.agent")
_WARMUPS, _RUNS = 3, 5  # TorchScript specialises on its first runs
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0  # before a broken model is started again
_MOST_BUDGETS = 4  # of latency, that a batch may last before its process is ended


def charged_as(model: str, workload: str) -> Workload:
    """What a model's batches cost as much as: a workload with costs, or its name alone."""
    if not workload:
        return Workload(model, "infer", 1)
    named = load_workload(workload)
    if named.kind != "infer":
        raise InvalidInput(f"model {model}: {workload} is no inference workload")
    return named


class ModelJob(EngineJob):
    """Serves a model: a turn is one batch of its requests, charged as a workload if it has one.

    `broke` is told, on the device thread, of a model that answers no more: it must not wait.
    """

    def __init__(
        self, model: Model, file: ModelFile, broke: Callable[[Model], None] = lambda _: None
    ) -> None:
        self.name = model.name
        self.model = model
        self.file = file
        self.broke = broke
        self._workload = charged_as(model.name, file.workload)

    def workload(self, size: int) -> Workload:
        """The workload of a batch of so many requests."""
        return self._workload.with_batch_size(self.model.fixed_batch or size)

    def run(
        self, tickets: Sequence[Ticket]
    ) -> list[tuple[int, tuple[torch.Tensor, ...]] | Exception]:
        """Version of the model and outputs, of each ticket, or why it failed."""
        model = self.model  # the same for all of the batch
        try:
            outcomes = model.predict_each([ticket.payload for ticket in tickets])
        finally:
            if model.host.broken:
                self.broke(model)
        return [
            outcome if isinstance(outcome, Exception) else (model.version, outcome)
            for outcome in outcomes
        ]


class Registry:
    """The models of an engine; any thread may ask, loading takes a while.

    Parameters
    ----------
    engine : TurnEngine
        Serves them; must run, because a model is timed on the device between its turns.
    queue_length : int
        Requests that may wait for one model.
    hosting : Hosting, optional
        What models that carry code may take.
    lease_s : float
        The longest turn of a process that is not ours.
    """

    def __init__(
        self,
        engine: TurnEngine,
        queue_length: int = 1024,
        hosting: Hosting | None = None,
        lease_s: float = 2.0,
    ) -> None:
        self._engine = engine
        self._queue_length = queue_length
        self._hosting = hosting or Hosting()
        self._lease_s = lease_s
        self._jobs: dict[str, ModelJob] = {}
        self._loading = threading.Lock()
        self._breaks: dict[str, tuple[float, float]] = {}  # the last wait, and when it was over
        self._closed = threading.Event()

    def get(self, name: str) -> Model:
        """The present version of a model; with an empty name, of the only one."""
        if not name and len(self._jobs) == 1:
            return next(iter(self._jobs.values())).model
        job = self._jobs.get(name)
        if job is None:
            raise UnknownName("model", name, self._jobs, "; see: wattfed-agent status")
        return job.model

    def task(self, name: str) -> str:
        """The task that a model's parameters are of; empty if it came with its own network."""
        return self._jobs[name].file.task

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
        self._check_is_new(file.name)
        began_s = time.monotonic()
        model = read_model(file, hosting=self._hosting)  # which may hang, while others are swapped
        with self._loading, _closed_if_refused(model):
            self._check_is_new(file.name)
            job = ModelJob(model, file, self._mend_later)
            service = self._service(job)
            _LOG.info(
                "model %s: on %s, read, warmed up and timed in %.3g s",
                *(file.name, Accelerator.here().name, time.monotonic() - began_s),
            )
            self._engine.add_service(job, service)
            self._limit(job, model)
            self._jobs[file.name] = job
            return model

    def _check_is_new(self, name: str) -> None:
        if name in self._jobs:
            raise InvalidInput(f"there is a model {name!r} already: reload it")

    def close(self) -> None:
        """End the processes of all models, and of those that are being loaded."""
        self._closed.set()
        self._hosting.close()

    def reload(self, name: str, path: str = "") -> Model:
        """Read the next version of a model and swap it in."""
        model = self.get(name)
        file = self._jobs[model.name].file
        file = replace(file, path=path or file.path)
        return self.swap(read_model(file, model.version + 1, self._hosting))

    def swap(self, model: Model, broken: Model | None = None) -> Model:
        """Serve a new version from the next batch on; requests that wait are answered by it.

        Parameters
        ----------
        model : Model
        broken : Model, optional
            What it replaces, if that is still served.

        Raises
        ------
        InvalidInput
            If its inputs are others: requests that wait would not fit.
        """
        with self._loading, _closed_if_refused(model):
            present = self.get(model.name)
            if broken not in (None, present):
                raise InvalidInput(f"model {model.name} has been replaced meanwhile")
            if model.inputs != present.inputs or model.fixed_batch != present.fixed_batch:
                shapes = ["+".join(map(str, m.inputs)) for m in (model, present)]
                raise InvalidInput(
                    f"model {model.name}: the new version takes {shapes[0]}, the one that is "
                    f"served {shapes[1]}; load it under another name"
                )
            job = self._jobs[model.name]
            sizes = sorted({model.fixed_batch or 1, self._engine.service(model.name).batch_size})
            for size in sizes * _WARMUPS:
                self._time(job, model, size)
            self._limit(job, model)
            self._engine.between_turns(lambda: setattr(job, "model", model)).result()
            present.host.close()
            return model

    def _limit(self, job: ModelJob, model: Model) -> None:
        """Let no batch last much longer than it may: others wait meanwhile."""
        longest_s = max(self._lease_s, _MOST_BUDGETS * job.file.latency_s)
        model.host.limit_s = min(model.host.limit_s, longest_s)

    def _mend_later(self, broken: Model) -> None:
        """Start a model again that has broken, in a thread of its own."""
        _LOG.warning("%s", broken.host.broken)
        mend = partial(self._mend, broken)
        threading.Thread(target=mend, name=f"mend {broken.name}", daemon=True).start()

    def _mend(self, broken: Model) -> None:
        """Start a model again, the later the more often it has broken of late."""
        name, now_s = broken.name, time.monotonic()
        wait_s, mended_s = self._breaks.get(name, (0.0, now_s))
        if now_s - mended_s > _LONGEST_WAIT_S:
            wait_s = 0.0  # it was well for long
        while True:
            wait_s = min(max(2 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            if self._closed.wait(wait_s):
                return
            if self.get(name) is not broken:
                return  # a new version was loaded
            file = replace(self._jobs[name].file, path=broken.source)
            try:
                self.swap(read_model(file, broken.version, self._hosting), broken)
                self._breaks[name] = wait_s, time.monotonic()
                _LOG.info("model %s is served again, after %.3g s", name, wait_s)
                return
            except Exception as error:  # whatever keeps it from being started, it is tried again
                _LOG.warning("model %s could not be started again: %s", name, error)

    def _service(self, job: ModelJob) -> ServiceSpec:
        """The plan of a new model: its batches are timed, from small ones to large ones."""
        file, model, time_s = job.file, job.model, dict[int, float]()
        for size in _sizes(file, model):
            times_s = [self._time(job, model, size) for _ in range(_WARMUPS + _RUNS)][_WARMUPS:]
            time_s[size] = sorted(times_s)[len(times_s) // 2]
            if time_s[size] > file.latency_s:  # a larger batch is of no use
                break
        if min(time_s.values()) >= file.latency_s:
            raise InvalidInput(
                f"model {file.name}: a batch of {min(time_s)} takes "
                f"{spoken(min(time_s.values()), 's')} here, its latency budget is "
                f"{spoken(file.latency_s, 's')}; allow more with latency="
            )
        return ServiceSpec(
            name=file.name,
            latency_s=file.latency_s,
            batch_size=min(file.batch_size, max(time_s)),
            time_s=time_s,
            capacity=self._queue_length,
        )

    def _time(self, job: ModelJob, model: Model, size: int) -> float:
        """Seconds of one batch, run between turns: one at a time, so that requests go on."""
        workload, batch = job.workload(size), model.example(size)

        def step() -> None:
            model.predict(batch)

        execute = partial(self._engine.device.execute, workload, step)
        return float(self._engine.between_turns(execute).result())


@contextmanager
def _closed_if_refused(model: Model) -> Iterator[None]:
    """End a model's process if it comes to be served no more."""
    try:
        yield
    except BaseException as error:
        model.host.close()
        if isinstance(error, (Broken, ModelFailed)):
            raise InvalidInput(str(error)) from None
        raise


def _sizes(file: ModelFile, model: Model) -> list[int]:
    """Batch sizes to time: powers of two up to the largest; the fixed one and 1 if there is one."""
    if model.fixed_batch:
        return sorted({1, model.fixed_batch})
    largest = max(file.largest_batch, file.batch_size)
    powers = [1 << i for i in range(largest.bit_length()) if 1 << i < largest]
    return sorted({*powers, file.batch_size, largest})
