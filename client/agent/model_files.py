"""Model files that carry code, TorchScript and torch.export: looked into, read, and run on batches.

Nothing in them is unpickled but tensors. That is not enough to trust them: what they compute is
theirs to say, and torch evaluates a .pt2's expressions as Python. So only a model's own process
reads them, see `model_process`.
"""

from __future__ import annotations

import codecs
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from powerctl.accelerator import CPU, Accelerator
from powerctl.errors import InvalidInput

TORCHSCRIPT, EXPORT = "torchscript", "export"
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
)
"""Types of the tensors that go into a model and come out of it."""

codecs.lookup("cp437")  # of names in an archive; in a sandbox nothing can be imported
_WHAT_WORKS = (
    "what works is torch.export.save of a program whose weights and constants are plain tensors "
    "(torch 2.4 and later), torch.jit.script(model).save(PATH), or the weights with task=TASK"
)
# torch.export.load hands these to pickle (opaque_obj_; before torch 2.13 also custom_obj_), or to
# the dynamic linker (aotinductor)
_REFUSED = re.compile(r"(?:^|/)data/(?:constants/(?:opaque|custom)_obj_|aotinductor/)")
_CODE = re.compile(r"(?:^|/)code/.*\.py$")
_PROGRAM = re.compile(r"(?:^|/)(?:models/[^/]+\.json|serialized_exported_program\.json)$")
_PICKLE = re.compile(r"(?:^|/)data\.pkl$")


@dataclass(frozen=True)
class Program:
    """What a file has given: a module, and of torch.export its inputs.

    Attributes
    ----------
    module : callable
        From batched tensors to a batched tensor, or several.
    inputs : tuple
        Shape of one sample and type of each input; empty if the file does not say.
    fixed_batch : int or None
        The only batch size it takes, if it was exported with one.
    """

    module: Callable[..., Any]
    inputs: tuple[tuple[tuple[int, ...], torch.dtype], ...] = ()
    fixed_batch: int | None = None


def read_program(file: BinaryIO, form: str, accelerator: Accelerator) -> Program:
    """Read TorchScript or torch.export, and place it.

    Raises
    ------
    InvalidInput
        If the file is of another format, or would unpickle anything but tensors.
    """
    check_archive(file, form)
    try:
        if form == EXPORT:
            program = torch.export.load(file)
            fixed_batch, inputs = _exported_inputs(program)
            return Program(_placed(program, accelerator), inputs, fixed_batch)
        load: Callable[..., Any] = torch.jit.load  # which says no types
        return Program(load(file, map_location=accelerator.device).eval())
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{found[1]} is no tensor" if found else "more than tensors"
        raise InvalidInput(f"it unpickles ({what}), which is not done; {_WHAT_WORKS}") from None


def check_archive(file: BinaryIO, form: str) -> None:
    """Raise `InvalidInput` unless the names in an archive are those of a format without objects."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        raise InvalidInput("it is neither of TorchScript nor of torch.export") from None
    file.seek(0)
    if refused := next(filter(_REFUSED.search, names), None):
        raise InvalidInput(f"{refused} is an object or a library, not a tensor; {_WHAT_WORKS}")
    if any(map(_CODE.search, names)):
        found = TORCHSCRIPT
    elif any(map(_PROGRAM.search, names)):
        found = EXPORT
    elif any(map(_PICKLE.search, names)):
        raise InvalidInput(f"torch.save wrote it, which pickles; {_WHAT_WORKS}")
    else:
        raise InvalidInput("it is neither of TorchScript nor of torch.export")
    if found != form:
        raise InvalidInput(
            f"it is of {found}; files of torch.export, and only they, are named .pt2"
        )


def close_pickle() -> None:
    """From now on, have `torch.load` of this process read weights alone, and pickle load nothing.

    torch.export.load asks for more: torch 2.13 where weights alone have failed or the archive says
    ``use_pickle``, older ones always. torch heeds its variable before what a caller asks.
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise pickle.UnpicklingError("pickle is closed here")

    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    pickle.load = pickle.loads = refuse


def run_module(
    module: Callable[..., Any], batch: Sequence[torch.Tensor], accelerator: Accelerator
) -> list[torch.Tensor]:
    """A module's outputs for a batch; they are on the CPU, as the inputs are."""
    with torch.inference_mode():
        return [output.cpu() for output in _tensors(module(*accelerator.move(list(batch))))]


def _placed(program: Any, accelerator: Accelerator) -> torch.nn.Module:
    """The module of an exported program, with parameters and constants where we compute."""
    if accelerator.name != CPU:
        try:
            from torch.export.passes import move_to_device_pass
        except ImportError:  # before torch 2.6: what the graph itself puts on a device stays
            return accelerator.place(_module(program))
        program = move_to_device_pass(program, accelerator.name)
    return _module(program)


def _module(program: Any) -> torch.nn.Module:
    module: torch.nn.Module = program.module()
    return module


def _exported_inputs(program: Any) -> tuple[int | None, Any]:
    """The fixed batch size of an exported program, if it has one, and its inputs."""
    if program.example_inputs is None:
        raise InvalidInput("it was saved without example inputs")
    arguments, keywords = program.example_inputs
    if keywords or not all(isinstance(a, torch.Tensor) and a.dim() for a in arguments):
        raise InvalidInput("exported inputs must be batched tensors by position")
    inputs = tuple((tuple(a.shape[1:]), a.dtype) for a in arguments)
    fixed = not program.range_constraints  # none where no dimension is dynamic
    return (int(arguments[0].shape[0]) if fixed else None), inputs


def _tensors(outputs: Any) -> tuple[torch.Tensor, ...]:
    found = tuple(outputs.values()) if isinstance(outputs, dict) else outputs
    found = (found,) if isinstance(found, torch.Tensor) else tuple(found)
    if not all(isinstance(output, torch.Tensor) for output in found):
        raise InvalidInput("a model's outputs must be tensors")
    return found
