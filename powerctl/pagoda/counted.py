"""What is counted, a model or a user's own task: its workload, without any measurement."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from powerctl.cost_model import Signature
from powerctl.durable import home_folder
from powerctl.errors import InvalidInput, TaskFailed
from powerctl.pagoda.counting import NeedsData, Optimiser, count_model
from powerctl.pagoda.counts import Counts
from powerctl.pagoda.estimate import (
    Efficiency,
    efficiency_of,
    estimate_minibatch,
    estimate_signature,
)
from powerctl.pagoda.models import NamedModel, load_model
from powerctl.pagoda.step_counting import LIMIT_S, StepCounts, count_step
from powerctl.task.arguments import alike
from powerctl.task.data import takes_batch_size
from powerctl.task.loading import Task
from powerctl.task.measuring import alone_given
from powerctl.workload import Workload, load_workload, stand_in, write_workload

_LOG = logging.getLogger("powerctl")
_USUAL_SIZE = 16
_PATH = alike("path")
_SHOWN = 8  # characters of a hash that are enough to tell two versions of a task apart
_VERSION = 2  # of counting and estimating: what another one counted is not read


@dataclass(frozen=True, eq=False)
class CountedModel:
    """Training or inference of a model.

    Parameters
    ----------
    model : NamedModel
        What runs.
    kind : str
        ``"train"`` or ``"infer"``.
    optimiser : {"sgd", "sgd-momentum", "adam"}
        Of training.
    """

    model: NamedModel
    kind: str = "infer"
    optimiser: Optimiser = "sgd"

    @classmethod
    def of(
        cls, spec: str, input_text: str | None, kind: str, optimiser: Optimiser = "sgd"
    ) -> CountedModel:
        """Of a model's name; see `load_model`."""
        if kind not in ("train", "infer"):
            raise InvalidInput(f"kind is 'train' or 'infer', not {kind!r}")
        return cls(load_model(spec, input_text), kind, optimiser)

    @property
    def name(self) -> str:
        """Name of the workload: that of the model, and the kind."""
        return f"{self.model.name}-{self.kind}"

    @property
    def called(self) -> str:
        """The name that people know it by."""
        return self.model.name

    @property
    def tokens(self) -> int | None:
        """Tokens of a sample; None if it is an image."""
        sample = self.model.samples[0]
        return None if sample.dtype.is_floating_point else math.prod(sample.shape)

    @property
    def efficiency(self) -> Efficiency:
        """What its kernels are expected to reach."""
        return efficiency_of(self.kind)

    @lru_cache(maxsize=64)  # noqa: B019  counting takes a second; fits to many tables go round
    def counts(self, batch_size: int) -> Counts:
        """What a minibatch needs; of a model that needs data, what it does on zeros."""
        training = self.kind == "train"
        optimiser = self.optimiser if training else None
        module, inputs = self.model.module, self.model.inputs(batch_size)
        try:
            return count_model(module, inputs, training=training, optimiser=optimiser)
        except NeedsData:
            zeros = [torch.zeros_like(x, device="cpu") for x in inputs]
            return count_model(module, zeros, training=training, optimiser=optimiser, compute=True)

    @cached_property
    def signature(self) -> Signature:
        """What a minibatch needs, estimated from the counts."""
        return estimate_signature(self.counts, self.kind, self.tokens)

    def workload(self, batch_size: int) -> Workload:
        """The workload that devices, simulations and solvers take."""
        return Workload(
            name=self.name,
            kind=self.kind,
            batch_size=batch_size,
            signature=self.signature,
            title=f"{self.model.name}, {self.kind}",
            source=f"estimated from counts of {self.model.name}, not measured",
            parameters=self.model.parameters,
            counted_share=self.counts(batch_size).known_share,
        )


@dataclass(frozen=True, eq=False)
class CountedTask:
    """Training or evaluation of a user's own task, counted from one minibatch of it.

    Their code runs once, for a second or so: what came of it is kept in a file, by the name of the
    workload.

    Parameters
    ----------
    task : Task
        The user's.
    kind : str
        ``"train"`` or ``"infer"``.
    given : mapping of str to object
        What its functions are given; by default, that of one who has all the data.
    folder : Path, optional
        Where workloads are kept; by default `counted_folder`.
    limit_s : float
        Wall-clock seconds that a minibatch may take while it is counted.
    """

    task: Task
    kind: str = "train"
    given: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    limit_s: float = LIMIT_S

    def name(self, batch_size: int | None = None) -> str:
        """Name of the workload: the task, a hash of its code and settings, and the batch size.

        Where the data lie is no part of it: that differs from device to device.
        """
        task = self.task
        code = task.code_hash or "unsaved"
        of_all = {k: v for k, v in task.settings.items() if k.replace("-", "_") not in _PATH}
        if task.code_hash and of_all:
            settings = json.dumps(of_all, sort_keys=True, default=repr)
            code = hashlib.sha256(f"{code}\0{settings}".encode()).hexdigest()
        size = f"-b{batch_size or self.usual_size}" if takes_batch_size(task) else ""
        kind = "" if self.kind == "train" else f"-{self.kind}"
        return re.sub(r"[^\w.@:-]", "_", f"{task.name}@{code[:_SHOWN]}{size}{kind}")

    @property
    def called(self) -> str:
        """The name that people know it by."""
        return self.task.name

    @property
    def usual_size(self) -> int:
        """The batch size that the settings say, or 16."""
        settings = {key.replace("-", "_"): value for key, value in self.task.settings.items()}
        said = settings.get("batch_size")
        return said if isinstance(said, int) and said > 0 else _USUAL_SIZE

    @property
    def efficiency(self) -> Efficiency:
        """What its kernels are expected to reach."""
        return efficiency_of(self.kind)

    @lru_cache(maxsize=8)  # noqa: B019  counting takes a second, and such objects are few
    def step(self, batch_size: int | None = None) -> StepCounts:
        """What a minibatch needs, counted now; raises `TaskFailed` if the user's code fails."""
        given = {**alone_given(self.task), **self.given}
        given["batch_size"] = batch_size or self.usual_size
        return count_step(self.task, self.kind, given, self.limit_s)

    def counts(self, batch_size: int | None = None) -> Counts:
        """What a minibatch needs, operator by operator."""
        return self.step(batch_size).counts

    def workload(self, batch_size: int | None = None) -> Workload:
        """The workload that devices, simulations and solvers take.

        It is that of a minibatch of this size; of a task whose loader has a size of its own, of
        that. What was counted before is not counted again.

        Raises
        ------
        TaskFailed
            If the user's code fails.
        """
        path = None
        if self.task.code_hash:
            path = (self.folder or counted_folder()) / f"{self.name(batch_size)}.toml"
            if path.is_file():
                return load_workload(str(path))
        counted = self._counted(batch_size)
        return counted if path is None else _kept(counted, path)

    def known(self, batch_size: int | None = None) -> Workload:
        """The workload, or, where the task cannot be counted, one that says so in its `source`.

        It is charged as a small network then, of which next to nothing is sure.
        """
        try:
            return self.workload(batch_size)
        except TaskFailed as error:
            return Workload(
                name=self.name(batch_size),
                kind=self.kind,
                batch_size=batch_size or self.usual_size,
                signature=stand_in(self.kind),
                title=f"{self.task.name}, {self.kind}",
                source=f"cannot be counted ({error}): charged as a small network",
                counted_share=0.0,
            )

    def _counted(self, batch_size: int | None) -> Workload:
        step = self.step(batch_size)
        return Workload(
            name=self.name(batch_size),
            kind=self.kind,
            batch_size=step.counts.batch_size,
            signature=estimate_minibatch(step.counts, self.kind, step.host_cycles_per_sample),
            title=f"{self.task.name}, {self.kind}",
            source=f"counted from {Path(self.task.where).name}, not measured",
            parameters=step.parameters,
            counted_share=step.counts.known_share,
        )


def _kept(counted: Workload, path: Path) -> Workload:
    """What is in the file of a workload: rounded, as all others see it, and of who was first.

    Another process may have counted meanwhile, whose loader took another time.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_workload(counted, own)
        with suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    except (OSError, InvalidInput) as error:
        _LOG.warning("what was counted is not kept, and will be counted again: %s", error)
        return counted
    return load_workload(str(path))


def counted_folder() -> Path:
    """Where the workloads of counted tasks are kept: ``$POWERCTL_HOME/counted``."""
    return home_folder() / "counted" / str(_VERSION)
