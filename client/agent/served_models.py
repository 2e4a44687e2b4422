"""Models: read from TorchScript, torch.export or a task's state dict, and run on batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord

from powerctl.accelerator import Accelerator
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.reading import in_line
from wattfed.client.agent.engine_jobs import Broken
from wattfed.client.agent.model_files import EXPORT, TORCHSCRIPT, run_module
from wattfed.client.agent.model_host import Hosting, ModelHost, ModelProcess
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import InputSpec, parse_inputs
from wattfed.client.tasks.federated import federated
from wattfed.client.worker.model_arrays import load_arrays, load_file
from wattfed.strategies.run_config import RunConfig

STATE_DICT = "state-dict"
Sample = Sequence[torch.Tensor]
Outputs = tuple[torch.Tensor, ...]


@dataclass
class AgentHost(ModelHost):
    """Hosts a module of a listed task in this process."""

    module: torch.nn.Module

    def run(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of a batch, computed here and now."""
        return run_module(self.module, batch, Accelerator.here())


@dataclass(frozen=True)
class Model:
    """A model that runs on batches.

    Attributes
    ----------
    host : ModelHost
        From batched tensors to batched tensors.
    fixed_batch : int or None
        The only batch size it takes, if it was exported with one; smaller ones are padded.
    """

    name: str
    version: int
    source: str
    format: str
    inputs: tuple[InputSpec, ...]
    host: ModelHost
    fixed_batch: int | None = None

    def predict(self, samples: Sequence[Sample]) -> list[Outputs]:
        """The outputs of each sample, from one batch; they are on the CPU, as the samples are."""
        padding = [samples[-1]] * ((self.fixed_batch or 0) - len(samples))
        columns = zip(*samples, *padding, strict=True)
        outputs = self.host.run([torch.stack(column) for column in columns])
        batch_size = len(samples) + len(padding)
        for output in outputs:
            if output.dim() == 0 or output.shape[0] != batch_size:
                raise InvalidInput(
                    f"{self.name}: an output of shape {tuple(output.shape)} for a batch of "
                    f"{batch_size}; the first dimension must be the batch"
                )
        return [tuple(output[i] for output in outputs) for i in range(len(samples))]

    def predict_each(self, samples: Sequence[Sample]) -> Sequence[Outputs | Exception]:
        """As `predict`; if that fails, each alone, with the error in place of its outputs.

        Raises
        ------
        Broken
            If the model answers no more.
        Exception
            Whatever the model's code raises, where it does so for each.
        """
        try:
            return self.predict(samples)
        except Broken:
            raise
        except Exception as error:
            each = [self._alone(sample) for sample in samples] if len(samples) > 1 else [error]
            if all(isinstance(outcome, Exception) for outcome in each):
                raise
            return each

    def _alone(self, sample: Sample) -> Outputs | Exception:
        try:
            return self.predict([sample])[0]
        except Exception as error:
            return error

    def example(self, batch_size: int) -> list[Sample]:
        """A batch of so many samples of zeros."""
        return [[spec.example(1)[0] for spec in self.inputs]] * batch_size


def read_model(file: ModelFile, version: int = 1, hosting: Hosting | None = None) -> Model:
    """Read a model and run one batch of zeros through it.

    Raises
    ------
    InvalidInput, UnknownName
        If there is no such file or task, it is no model, its inputs are not known, or it carries
        code and there is no sandbox.
    """
    if not os.path.isfile(file.path):  # also for what can be no name of a file
        raise InvalidInput(f"model {file.name}: there is no file {in_line(file.path)}")
    hosting = hosting or Hosting()
    model = _of_task(file, version) if file.task else _hosted(file, version, hosting)
    try:
        _try(model)
    except BaseException:
        model.host.close()
        raise
    return model


def _hosted(file: ModelFile, version: int, hosting: Hosting) -> Model:
    """A model in a process of its own."""
    form = EXPORT if file.path.endswith(".pt2") else TORCHSCRIPT
    given = parse_inputs(file.inputs) if file.inputs else ()
    if form == TORCHSCRIPT and not given:
        raise InvalidInput(
            f"model {file.name}: TorchScript does not say its inputs; "
            f"add them: --model {file.name}={file.path},inputs=3x224x224"
        )
    try:
        host = ModelProcess(file, form, hosting)
    except DeviceUnavailable as error:
        raise InvalidInput(f"model {file.name}: cannot serve {file.path}: {error}") from None
    try:
        host.read(given, max(file.largest_batch, file.batch_size))
    except (InvalidInput, Broken) as error:
        host.close()
        raise InvalidInput(f"model {file.name}: cannot read {file.path}: {error}") from None
    return Model(file.name, version, file.path, form, host.inputs, host, host.fixed_batch)


def _of_task(file: ModelFile, version: int) -> Model:
    """A model of a task with a state dict."""
    try:
        return task_model(file.name, file.task, Path(file.path), version, file.path)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a task of somebody else raises
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInput(f"model {file.name}: cannot read {file.path}: {reason}") from error


def task_model(
    name: str, task: str, arrays: ArrayRecord | Path, version: int, source: str
) -> Model:
    """The model of a task with the arrays that a federated round brings, or of a file."""
    learned = federated(RunConfig(task=task), 1)
    module = learned.model()
    if isinstance(arrays, Path):
        load_file(module, arrays)
    else:
        load_arrays(module, arrays)
    if learned.samples is None:
        raise InvalidInput(f"model {name}: {task} does not tell the shape of an input")
    sample = next(iter(learned.central)).inputs[0]
    inputs = (InputSpec(tuple(sample.shape), sample.dtype),)
    return Model(name, version, source, STATE_DICT, inputs, AgentHost(module.eval()))


def _try(model: Model) -> None:
    """Raise `InvalidInput` if a model does not run on its own inputs."""
    try:
        model.predict(model.example(model.fixed_batch or 2))
    except InvalidInput:
        raise
    except Broken as error:
        raise InvalidInput(str(error)) from None
    except Exception as error:  # whatever the model's code raises
        shapes = "+".join(map(str, model.inputs))
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InvalidInput(
            f"model {model.name} does not run on inputs {shapes}: {reason}"
        ) from error
