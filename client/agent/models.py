"""Models: read from TorchScript, torch.export or a task's state dict, and run on batches."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord

from powerctl.accelerator import CPU, Accelerator
from powerctl.errors import InvalidInput
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import InputSpec, parse_inputs
from wattfed.client.model_arrays import SAVE_STATE, load_arrays, load_file
from wattfed.client.tasks.federated import federated
from wattfed.strategies.run_config import RunConfig

TORCHSCRIPT, EXPORT, STATE_DICT = "torchscript", "export", "state-dict"
Sample = Sequence[torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A model that runs on batches.

    Attributes
    ----------
    module : callable
        From batched tensors to a batched tensor, or several.
    fixed_batch : int or None
        The only batch size it takes, if it was exported with one; smaller ones are padded.
    accelerator : Accelerator
        Where the module lives.
    """

    name: str
    version: int
    source: str
    format: str
    inputs: tuple[InputSpec, ...]
    module: Callable[..., Any]
    fixed_batch: int | None = None
    accelerator: Accelerator = field(default_factory=lambda: Accelerator.here())

    def predict(self, samples: Sequence[Sample]) -> list[tuple[torch.Tensor, ...]]:
        """The outputs of each sample, from one batch; they are on the CPU, as the samples are."""
        padding = [samples[-1]] * ((self.fixed_batch or 0) - len(samples))
        columns = zip(*samples, *padding, strict=True)
        with torch.inference_mode():
            batch = self.accelerator.move([torch.stack(column) for column in columns])
            outputs = [output.cpu() for output in _tensors(self.module(*batch))]
        batch_size = len(samples) + len(padding)
        for output in outputs:
            if output.dim() == 0 or output.shape[0] != batch_size:
                raise InvalidInput(
                    f"{self.name}: an output of shape {tuple(output.shape)} for a batch of "
                    f"{batch_size}; the first dimension must be the batch"
                )
        return [tuple(output[i] for output in outputs) for i in range(len(samples))]

    def example(self, batch_size: int) -> list[Sample]:
        """A batch of zeros."""
        return [[spec.example(1)[0] for spec in self.inputs]] * batch_size


def read_model(file: ModelFile, version: int = 1) -> Model:
    """Read a model and run one batch of zeros through it.

    Raises
    ------
    InvalidInput, UnknownName
        If there is no such file or task, it is no model, or its inputs are not known.
    """
    if not Path(file.path).is_file():
        raise InvalidInput(f"model {file.name}: there is no file {file.path}")
    try:
        model = _read(file, version)
    except InvalidInput:
        raise
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        reason = str(error).strip().partition("\n")[0]
        if not zipfile.is_zipfile(file.path):
            reason = "it is neither of TorchScript nor of torch.export"
        elif _is_pickled(Path(file.path)):
            reason = (
                "torch.save wrote it; save the model with torch.jit.script(model).save(PATH), or "
                f"its weights with {SAVE_STATE}, and add task=TASK"
            )
        raise InvalidInput(f"model {file.name}: cannot read {file.path}: {reason}") from error
    _try(model)
    return model


def _is_pickled(path: Path) -> bool:
    """Whether torch.save wrote an archive: with a pickle, and without code."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(name.endswith("/data.pkl") for name in names) and not any(
        "/code/" in name for name in names
    )


def _read(file: ModelFile, version: int) -> Model:
    name, path = file.name, file.path
    given = parse_inputs(file.inputs) if file.inputs else ()
    if file.task:
        return task_model(file.name, file.task, Path(file.path), version, file.path)
    if file.path.endswith(".pt2"):
        program = torch.export.load(file.path)
        batch_size, inputs = _exported_inputs(program, file)
        module = _placed(program)
        return Model(name, version, path, EXPORT, inputs, module, batch_size)
    if not given:
        raise InvalidInput(
            f"model {file.name}: TorchScript does not say its inputs; "
            f"add them: --model {file.name}={file.path},inputs=3x224x224"
        )
    module = torch.jit.load(file.path, map_location=Accelerator.here().device).eval()
    return Model(name, version, path, TORCHSCRIPT, given, module)


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
    return Model(name, version, source, STATE_DICT, inputs, module.eval())


def _placed(program: Any) -> torch.nn.Module:
    """The module of an exported program, with parameters and constants where we compute."""
    there = Accelerator.here()
    if there.name != CPU:
        try:
            from torch.export.passes import move_to_device_pass
        except ImportError:  # before torch 2.6: what the graph itself puts on a device stays
            return there.place(program.module())
        program = move_to_device_pass(program, there.name)
    return program.module()


def _exported_inputs(program: Any, file: ModelFile) -> tuple[int | None, tuple[InputSpec, ...]]:
    """The fixed batch size of an exported program, if it has one, and its inputs."""
    if program.example_inputs is None:
        raise InvalidInput(f"model {file.name}: {file.path} was saved without example inputs")
    arguments, keywords = program.example_inputs
    if keywords or not all(isinstance(a, torch.Tensor) and a.dim() for a in arguments):
        raise InvalidInput(
            f"model {file.name}: exported inputs must be batched tensors by position"
        )
    inputs = tuple(InputSpec(tuple(a.shape[1:]), a.dtype) for a in arguments)
    fixed = not program.range_constraints  # none where no dimension is dynamic
    return (int(arguments[0].shape[0]) if fixed else None), inputs


def _try(model: Model) -> None:
    """Raise `InvalidInput` if a model does not run on its own inputs."""
    try:
        model.predict(model.example(model.fixed_batch or 2))
    except InvalidInput:
        raise
    except Exception as error:  # whatever the model's code raises
        shapes = "+".join(map(str, model.inputs))
        reason = str(error).strip().splitlines()[-1]
        raise InvalidInput(
            f"model {model.name} does not run on inputs {shapes}: {reason}"
        ) from error


def _tensors(outputs: Any) -> tuple[torch.Tensor, ...]:
    found = tuple(outputs.values()) if isinstance(outputs, dict) else outputs
    found = (found,) if isinstance(found, torch.Tensor) else tuple(found)
    if not all(isinstance(output, torch.Tensor) for output in found):
        raise InvalidInput("a model's outputs must be tensors")
    return found
