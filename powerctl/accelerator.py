"""Where models live: on this machine's GPU where torch can use one, else on its CPU."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from powerctl.errors import DeviceUnavailable, InvalidInput

if TYPE_CHECKING:
    import torch
    from torch import nn

    Model = TypeVar("Model", bound=nn.Module)

AUTO, CPU = "auto", "cpu"
CHOICE = "POWERCTL_ACCELERATOR"
"""The environment variable that says what a process computes on, and those that it starts."""

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
"""What the forward pass of training computes in; float16 would ask the user's loop to scale."""

_WRITTEN = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Accelerator:
    """What computes: a name of torch's, ``"cpu"`` or ``"cuda:0"``.

    Tests also name ``"meta"``, on which a tensor that was left elsewhere fails.
    """

    name: str = CPU

    @classmethod
    def of(cls, text: str = AUTO) -> Accelerator:
        """The one that a text names: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

        Raises
        ------
        InvalidInput
            If it names none.
        DeviceUnavailable
            If torch cannot use the GPU that it names.
        """
        if not _WRITTEN.fullmatch(text):
            raise InvalidInput(f"accelerator {text!r}: expected auto, cpu, cuda or cuda:N")
        found = n_gpus()
        if text == CPU or (text == AUTO and not found):
            return cls(CPU)
        number = int(text.partition(":")[2] or 0)
        if number < found:
            return cls(f"cuda:{number}")
        if found:
            raise DeviceUnavailable(f"accelerator {text}: this machine has {found}, cuda:0 onwards")
        raise DeviceUnavailable(
            f"accelerator {text}: torch finds no GPU; use cpu, or see `powerctl doctor` for the "
            "torch that belongs to this machine"
        )

    @classmethod
    def here(cls) -> Accelerator:
        """The one that this process computes on: `CHOICE` in its environment, else ``auto``."""
        try:
            return cls.of(os.environ.get(CHOICE) or AUTO)
        except (InvalidInput, DeviceUnavailable) as error:
            raise type(error)(f"{CHOICE}: {error}") from None

    @cached_property
    def device(self) -> torch.device:
        """The same device as an object of torch."""
        import torch

        return torch.device(self.name)

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU that torch uses through CUDA."""
        return self.name.startswith("cuda")

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16; GPUs before Ampere (Nano, TX2, Xavier) do not."""
        import torch

        return not self.is_gpu or torch.cuda.get_device_capability(self.device) >= (8, 0)

    def place(self, model: Model) -> Model:
        """The model, moved here with all its parameters and buffers."""
        return model.to(self.device)

    def move(self, data: Any) -> Any:
        """The data with all tensors in it moved here, in tuples, lists and mappings too.

        To a GPU they are copied from pinned memory, and not waited for: what is launched on the
        GPU afterwards runs after them. What is no tensor, and can be moved, moves itself.
        """
        import torch

        if isinstance(data, torch.Tensor):
            if self.is_gpu and data.device.type == CPU:
                return data.pin_memory().to(self.device, non_blocking=True)
            return data.to(self.device)
        if hasattr(data, "to"):  # such as a batch of a tokenizer, or of graphs
            return data.to(self.device)
        if isinstance(data, Mapping):
            return {key: self.move(value) for key, value in data.items()}
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return type(data)(*map(self.move, data))
        if isinstance(data, (list, tuple)):
            return type(data)(map(self.move, data))
        return data


@cache
def n_gpus() -> int:
    """How many GPUs torch can use: counted once, as each training asks for it."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_accelerator(text: str) -> None:
    """Have this process compute on what a text names, see `Accelerator.of`.

    So do the processes that it starts; an empty text changes nothing.
    """
    if text:
        Accelerator.of(text)
        os.environ[CHOICE] = text


def synchronise(there: Accelerator | None = None) -> None:
    """Wait for what this process has launched on a GPU, by default on its own, if it uses one.

    It is launched and not waited for, and ends after the step that did so; whoever closes a window
    of time or of energy calls this before.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        there = there or Accelerator.here()
        torch.cuda.synchronize(there.device if there.is_gpu else None)
