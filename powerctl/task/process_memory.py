"""The memory of training: what is free, what this process holds, and a count before any was seen.

On a Jetson the GPU's memory is the board's: what is free is what Linux can still give, and a
process holds its resident set and what torch has taken for the GPU. Only a GPU with memory of its
own counts apart. A container, or a unit of systemd, may have less than its machine. Of the workers
of a user's loaders nothing is known.
"""

from __future__ import annotations

import copy
import gc
import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from powerctl.accelerator import Accelerator

OUT_OF_MEMORY = "out of memory"
"""Why a round stopped whose minibatch found no memory."""

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# where each version of cgroups has a group's folder, its limit, what is charged to it, and how much
# of that is read from files, and given up when memory is short
_MEMORY_FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
_GIB = 2**30
_WORDS = (
    OUT_OF_MEMORY,  # of CUDA, in torch's words and in its own
    "can't allocate memory",  # of torch on the CPU
    "NVML_SUCCESS == r",  # what torch says in their place on a Jetson: pytorch's issue 185240
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_PER_PARAMETER = 4  # its gradient, two states of Adam, and FedProx's copy of the global model
_PER_ACTIVATION = 2  # itself, kept for the backward pass, and its gradient


@dataclass(frozen=True)
class ProcessMemory:
    """The memory in which the models of an accelerator live, as this process sees it.

    All is of the whole process: what it held at its peak, less what it holds now, is what it needs
    more, whoever else shares it.
    """

    accelerator: Accelerator

    def free_bytes(self) -> int:
        """Bytes that this process can still take, by what the machine and its cgroups leave."""
        if self._is_apart:
            return int(torch.cuda.mem_get_info(self.accelerator.device)[0])
        return min(_number(_PROC / "meminfo", "MemAvailable") * 1024, _cgroups_free_bytes())

    def held_bytes(self) -> int:
        """Bytes that this process has taken, what torch in it keeps for the next included."""
        return self._bytes("VmRSS", torch.cuda.memory_reserved)

    def peak_bytes(self) -> int:
        """The most that it had taken since `forget_peak`; since it began, if Linux forgets none."""
        return self._bytes("VmHWM", torch.cuda.max_memory_reserved)

    def forget_peak(self) -> None:
        """Let the peak begin at what is held now."""
        with suppress(OSError):
            (_PROC / "self/clear_refs").write_text("5")
        if self.accelerator.is_gpu and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)

    def lack(self, needed_bytes: float) -> str:
        """What to say if so much more cannot be taken; empty if it can."""
        free_bytes = self.free_bytes()
        if needed_bytes <= free_bytes:
            return ""
        return f"needs about {needed_bytes / _GIB:.2f} GiB, {free_bytes / _GIB:.2f} GiB is free"

    @property
    def _is_apart(self) -> bool:
        """Whether it is a GPU with memory of its own."""
        gpu = self.accelerator
        return gpu.is_gpu and not torch.cuda.get_device_properties(gpu.device).is_integrated

    def _bytes(self, of_process: str, of_gpu: Any) -> int:
        taken = int(of_gpu(self.accelerator.device)) if self.accelerator.is_gpu else 0
        return (
            taken if self._is_apart else taken + _number(_PROC / "self/status", of_process) * 1024
        )


def ran_out(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is that there was no memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__
    return False


def give_back() -> None:
    """Return what no tensor needs any more, after a failure: frames of its traceback held them."""
    gc.collect()
    torch.cuda.empty_cache()


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it began; -1: not told."""
    return _number(_PROC / "vmstat", "oom_kill", -1)


def counted_bytes(model: nn.Module, batch: Any) -> int:
    """What training on a minibatch takes beside the model, roughly; 0 if that cannot be counted.

    Nothing is computed: the model runs on tensors without data. It errs upwards, as if Adam kept
    its states, no activation was freed before the last was made, and each had its gradient then;
    but workspaces of kernels are not in it.

    Parameters
    ----------
    model : nn.Module
        On any device.
    batch : object
        Of the loader: a tensor, a sequence that begins with the model's input, or a mapping in
        which the arguments of `forward` have their names.
    """
    inputs = tree_map(_without_data, _inputs(model, batch))
    tensors = (*model.parameters(), *model.buffers())
    without_data = {id(tensor): _without_data(tensor) for tensor in tensors}
    made = _Made()
    try:
        with torch.no_grad(), torch.device("meta"), made:
            copy.deepcopy(model, without_data)(*inputs)  # a model may keep what it has seen
    except Exception:  # it needs data, or its loop gives it something else than the batch
        return 0
    own = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return _PER_PARAMETER * own + _PER_ACTIVATION * made.n_bytes


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all that operators make, as if nothing were freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: dict[int, torch.UntypedStorage] = {}  # held, so that no number comes twice

    @property
    def n_bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = storage
        return result


def _inputs(model: nn.Module, batch: Any) -> tuple[Any, ...]:
    if isinstance(batch, Mapping):
        return tuple(
            batch[name] for name in inspect.signature(model.forward).parameters if name in batch
        )
    return (batch[0],) if isinstance(batch, (tuple, list)) else (batch,)


def _without_data(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _cgroups_free_bytes() -> int:
    """What this process's cgroup, and each that it is in, may still take: the least of them."""
    free_bytes = sys.maxsize
    with suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for name in _MEMORY_FILES.keys() & controllers.split(","):
                where, limit, taken, files = _MEMORY_FILES[name]
                group = _CGROUPS / where / path.lstrip("/")
                while group.is_relative_to(_CGROUPS):
                    free_bytes = min(free_bytes, _free_bytes(group, limit, taken, files))
                    group = group.parent
    return free_bytes


def _free_bytes(group: Path, limit: str, taken: str, files: str) -> int:
    """What one cgroup may still take; more than there is without a limit, or without the folder.

    A container sees its own as the root, and may be told of a path that is not there.
    """
    with suppress(OSError, ValueError):  # no limit is the word max
        left = int((group / limit).read_text()) - int((group / taken).read_text())
        return max(0, left + _number(group / "memory.stat", files))
    return sys.maxsize


def _number(file: Path, name: str, missing: int = 0) -> int:
    """A number by its name in a file of the kernel."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            words = line.replace(":", " ").split()
            if words[:1] == [name]:
                return int(words[1])
    return missing
