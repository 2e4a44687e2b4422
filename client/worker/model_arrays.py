"""A model's arrays as they travel: out of a torch model, and into one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor, nn

from powerctl.errors import InvalidInput

Arrays = dict[str, NDArray[Any]]
_CARRIED = {torch.float32, torch.float64}  # floating types that travel as they are


def parameter_names(model: nn.Module) -> frozenset[str]:
    """Names of a model's parameters, frozen ones included; a tied one by each of its names."""
    return frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))


def arrays_of(model: nn.Module) -> Arrays:
    """A copy of all of a model's arrays, in its order, as NumPy has them.

    Floating types of 16 bits and fewer become float32: NumPy has no bfloat16, and an average in
    half precision loses small changes. A complex number becomes two real ones.

    Raises
    ------
    InvalidInput
        If something in the model's state is no array.
    """
    return _carried(_state_of(model))


def array_record_of(model: nn.Module) -> ArrayRecord:
    """A copy of all of a model's arrays as Flower's record."""
    return ArrayRecord({name: Array(array) for name, array in arrays_of(model).items()})


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any] | Array]) -> None:
    """Give a model these arrays; each takes the type and device that the model's own has.

    Raises
    ------
    InvalidInput
        Naming the array, if the model has none of its name, or one of another shape or kind.
    """
    own = _state_of(model)
    if wrong := sorted(own.keys() ^ arrays.keys()):
        side = "the model has no array" if wrong[0] in arrays else "there is no array"
        raise InvalidInput(f"the arrays are of another model: {side} {wrong[0]!r}")
    state = {}
    for name, tensor in own.items():
        given = arrays[name]
        array = given if isinstance(given, np.ndarray) else given.numpy()
        shape = (*tensor.shape, 2) if tensor.is_complex() else tuple(tensor.shape)
        if array.shape != shape or array.dtype.kind not in _kinds(tensor):
            raise InvalidInput(
                f"the arrays are of another model: {name!r} is {array.dtype} of shape "
                f"{array.shape}, the model's {tensor.dtype} of {shape}"
            )
        value = torch.from_numpy(np.require(array, requirements=("C", "W")))
        state[name] = torch.view_as_complex(value) if tensor.is_complex() else value
    model.load_state_dict(state)


class ResidentArrays:
    """The arrays of one model, written and read for one client after the other.

    Quick where NumPy can look at the model's own memory; what training has moved elsewhere, as a
    loop that begins with ``model.to(device)`` does, is found again: after each training, once.

    Parameters
    ----------
    model : nn.Module
        Theirs.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._is_found = False
        self._views: Arrays | None = None
        self._find()

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As `load_arrays`; a model of other arrays is not noticed where it is quick."""
        views = self._views if self._is_found else self._own()
        self._is_found = False  # whoever trains now may move them
        if views is None:
            load_arrays(self.model, arrays)
            return
        for name, values in arrays.items():
            views[name][...] = values

    def look(self) -> Arrays:
        """The arrays as `arrays_of` gives them; where it is quick, the model's own memory."""
        views = self._own()
        return arrays_of(self.model) if views is None else views

    def copy(self) -> Arrays:
        """A copy of the arrays, as `arrays_of` gives it."""
        if (views := self._own()) is None:
            return arrays_of(self.model)
        return {name: values.copy() for name, values in views.items()}

    def _own(self) -> Arrays | None:
        """The model's own memory; None where NumPy cannot look at it."""
        if self._held() != (self._children, self._at):
            self._find()
        self._is_found = True
        return self._views

    def _held(self) -> tuple[list[nn.Module | None], list[int]]:
        """What the modules hold: modules, and where their tensors are.

        As telling as the model's state, which takes torch ten times as long.
        """
        modules = self._modules
        children = [child for module in modules for child in module._modules.values()]
        tensors = (
            tensor
            for module in modules
            for tensors in (module._parameters, module._buffers)
            for tensor in tensors.values()
        )
        return children, [0 if tensor is None else tensor.data_ptr() for tensor in tensors]

    def _find(self) -> None:
        state = _state_of(self.model)
        self._modules = list(self.model.modules())
        self._children, self._at = self._held()
        plain = all(
            tensor.device.type == "cpu" and _as_numpy_has(tensor).dtype == tensor.dtype
            for tensor in state.values()
        )
        self._views = {name: t.detach().numpy() for name, t in state.items()} if plain else None


SAVE_STATE = "torch.save(model.state_dict(), PATH)"


def load_file(model: nn.Module, path: Path) -> None:
    """Give a model the arrays of a checkpoint: a state dict, or a dict that holds one.

    Raises
    ------
    InvalidInput
        Naming the file, if it cannot be read, holds no state dict or one of another model, or
        numbers that are not finite.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of others makes of torch's reader
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        if "Unsupported global" in str(error):  # torch's word for what is more than arrays
            reason = f"it holds a whole model, or other code; save it with {SAVE_STATE}"
        elif isinstance(error, OSError):
            reason = str(error.strerror)
        elif not isinstance(error, RuntimeError):  # whatever its reader makes of other bytes
            reason = "torch.save has not written it"
        raise InvalidInput(f"{path}: not a checkpoint of weights alone: {reason}") from None
    inner = list(content.values()) if isinstance(content, Mapping) else []
    states = [state for state in (content, *inner) if _is_state(state)]
    if not states:
        raise InvalidInput(f"{path}: neither a state dict nor a dict that holds one")
    names = _state_of(model).keys()
    state = next((state for state in states if state.keys() == names), states[0])
    try:
        arrays = _carried(state)
        load_arrays(model, arrays)
    except (InvalidInput, RuntimeError, TypeError) as error:  # of torch: sparse, quantized
        raise InvalidInput(f"{path}: {str(error).splitlines()[0]}") from None
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InvalidInput(f"{path}: {name!r} is not finite")


def _state_of(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    for name, value in state.items():
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        if not plain or value.is_quantized:
            raise InvalidInput(f"{name!r} in the model's state is no plain array")
    return state


def _is_state(value: Any) -> bool:
    is_filled = isinstance(value, Mapping) and bool(value)
    return is_filled and all(isinstance(each, Tensor) for each in value.values())


def _carried(state: Mapping[str, Tensor]) -> Arrays:
    return {name: _as_numpy_has(tensor).numpy().copy() for name, tensor in state.items()}


def _as_numpy_has(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, of a type that NumPy has; memory may be shared."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.is_floating_point() and tensor.dtype not in _CARRIED:
        return tensor.float()
    return tensor


def _kinds(tensor: Tensor) -> str:
    """NumPy's letters for the kinds of types that can be loaded into a tensor."""
    if tensor.is_floating_point() or tensor.is_complex():
        return "f"
    return "b" if tensor.dtype is torch.bool else "iu"
