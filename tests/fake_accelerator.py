"""An accelerator that is not there: torch's `meta` device with memory, which counts what is copied.

A tensor that was left on the CPU fails beside one of its own, as on a GPU. It computes on the CPU,
so that whatever is right comes out bit for bit as there.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils._pytree import tree_map

META = torch.device("meta")


class OnAccelerator(torch.Tensor):
    """A tensor in the accelerator's memory."""

    accelerator: FakeAccelerator

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnAccelerator:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=META
        )
        made._held = held
        cls.accelerator._living.append(weakref.ref(held))
        return made

    def tolist(self) -> Any:
        """As of torch, which leaves it to subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__

        def held(value: Any) -> Any:
            if isinstance(value, cls):
                return value._held
            if not isinstance(value, torch.Tensor):
                return value
            if value.device == META:  # what torch's loader has put there, without its numbers
                return torch.zeros(value.shape, dtype=value.dtype)
            if value.dim() and name != "copy_":
                raise RuntimeError(f"{name}: a tensor was left on the {value.device}")
            return value

        places = {x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)}
        if name in ("_to_copy", "to") and places - {META}:
            cls.accelerator.out.append(args[0].nbytes)
            return func(args[0]._held, *args[1:], **kwargs)
        if name == "copy_" and not isinstance(args[1], cls):
            cls.accelerator.into.append(args[1].nbytes)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        results = func(*tree_map(held, args), **tree_map(held, kwargs))
        if name.endswith("_") and not name.endswith("__"):
            return None if results is None else args[0]  # nothing of those for many tensors
        return tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, results)


class FakeAccelerator:
    """What was copied into its memory and out of it, in bytes of each copy, and what is in it."""

    def __init__(self, monkeypatch: Any) -> None:
        self.into: list[int] = []
        self.out: list[int] = []
        self._living: list[weakref.ref[torch.Tensor]] = []
        OnAccelerator.accelerator = self
        to = torch.Tensor.to

        def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            named = [x for x in (*args, *kwargs.values()) if isinstance(x, (torch.device, str))]
            plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
            if not plain or META not in map(torch.device, named):
                return to(tensor, *args, **kwargs)
            self.into.append(tensor.nbytes)
            dtypes = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
            return OnAccelerator(tensor.detach().to(*dtypes or [tensor.dtype], copy=True))

        monkeypatch.setattr(torch.Tensor, "to", moved, raising=False)
        # parameters stay the same objects when a module is moved, as on a GPU
        monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)

    @property
    def memory(self) -> int:
        """Bytes of its tensors that somebody holds."""
        gc.collect()
        alive = [held for ref in self._living if (held := ref()) is not None]
        return sum({t.untyped_storage().data_ptr(): t.nbytes for t in alive}.values())
