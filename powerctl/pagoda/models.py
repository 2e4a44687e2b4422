"""Models by name, for counting: the published ones, torchvision's, and a person's own."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from powerctl.errors import InvalidInput, UnknownName
from powerctl.pagoda.networks import BERT_BASE, BERT_LARGE, Bert, Lstm
from powerctl.plugins import blamed, load_object
from powerctl.torchvision_cpu import import_torchvision

Make: TypeAlias = Callable[[], nn.Module]

_IMAGE = "3,224,224"
_TORCHVISION = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenetv3": "mobilenet_v3_large",
    "efficientnet_b0": "efficientnet_b0",
    "vit_b_16": "vit_b_16",
}
_OURS: Mapping[str, tuple[Make, str]] = {
    "lstm": (Lstm, "35:int64"),
    "bert-base": (partial(Bert, BERT_BASE), "128:int64"),
    "bert-large": (partial(Bert, BERT_LARGE), "128:int64"),
}
_DTYPES: Mapping[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in "float32 float16 bfloat16 float64 int64 int32 uint8 bool".split()
}


@dataclass(frozen=True)
class SampleShape:
    """One input of one sample: its shape without the batch, and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def batch(self, batch_size: int) -> Tensor:
        """A minibatch of such inputs, without data."""
        return torch.empty(batch_size, *self.shape, dtype=self.dtype, device="meta")

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return ",".join(map(str, self.shape)) + ("" if dtype == "float32" else f":{dtype}")


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model and what it takes.

    Attributes
    ----------
    name : str
        As it was asked for.
    module : nn.Module
        On the meta device where it can be built there; a person's own is as their function left it.
    samples : tuple of SampleShape
        The inputs of one sample, in the order of the arguments of ``forward``.
    """

    name: str
    module: nn.Module
    samples: tuple[SampleShape, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters, each shared one once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Arguments of the module for a minibatch, on the meta device."""
        return tuple(sample.batch(batch_size) for sample in self.samples)


def model_names() -> list[str]:
    """Names that need no prefix."""
    return sorted((*_TORCHVISION, *_OURS))


def load_model(spec: str, input_text: str | None = None) -> NamedModel:
    """The model of a name.

    Parameters
    ----------
    spec : str
        A name of `model_names`, ``torchvision:NAME``, or ``package.module:make`` or
        ``file.py:make`` of a function without arguments that returns an ``nn.Module``.
    input_text : str, optional
        What one sample is, see `parse_input`. A floating-point type is the type of built-in and
        torchvision models too; a person's own model keeps its types.

    Raises
    ------
    UnknownName
        If there is no such model.
    InvalidInput
        If it cannot be built, or its input is not known.
    """
    source, _, name = spec.partition(":")
    if not name:
        return _built_in(spec, input_text)
    if source == "torchvision":
        return _of(spec, _torchvision(name), input_text or _IMAGE)
    if input_text is None:
        raise InvalidInput(
            f"the input of {spec} is not known: give a sample's shape without the batch, such as "
            "--input 3,224,224, or --input 128:int64 for token ids"
        )
    return NamedModel(spec, _own(spec), parse_input(input_text))


def torchvision_model(name: str) -> Make:
    """What builds a model of torchvision, or of a name of ours, with random weights."""
    return _torchvision(_TORCHVISION.get(name, name))


def parse_input(text: str) -> tuple[SampleShape, ...]:
    """The inputs written as ``3,224,224`` or ``128:int64``; several with ``;`` between them."""
    return tuple(_sample(part.strip()) for part in text.split(";"))


def _sample(text: str) -> SampleShape:
    shape, _, dtype = text.partition(":")
    if not re.fullmatch(r"[1-9]\d*(\s*,\s*[1-9]\d*)*", shape.strip()):
        raise InvalidInput(
            f"cannot read the input {text!r}: write a sample's shape without the batch, and its "
            "type unless it is float32, such as 3,224,224 or 128:int64"
        )
    if dtype and dtype not in _DTYPES:
        raise UnknownName("type of an input", dtype, _DTYPES)
    return SampleShape(tuple(map(int, shape.split(","))), _DTYPES[dtype or "float32"])


def _built_in(name: str, input_text: str | None) -> NamedModel:
    if name in _TORCHVISION:
        return _of(name, _torchvision(_TORCHVISION[name]), input_text or _IMAGE)
    if name in _OURS:
        make, usual = _OURS[name]
        return _of(name, make, input_text or usual)
    hint = "; or torchvision:NAME, or your own as package.module:make"
    raise UnknownName("model", name, model_names(), hint)


def _of(name: str, make: Make, input_text: str) -> NamedModel:
    samples = parse_input(input_text)
    module = _on_meta(make)
    if samples[0].dtype.is_floating_point:
        module = module.to(samples[0].dtype)
    return NamedModel(name, module, samples)


def _on_meta(make: Make) -> nn.Module:
    """Built without memory, or, where its construction looks at its weights, on the CPU."""
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make().to("meta")


def _torchvision(name: str) -> Make:
    """What builds a model of torchvision, with no weights from the net."""
    models: Any = import_torchvision().models
    known = models.list_models()
    if name not in known:
        raise UnknownName("model of torchvision", name, known)
    takes = inspect.signature(models.get_model_builder(name)).parameters
    nothing = {key: None for key in ("weights", "weights_backbone") if key in takes}

    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of initial weights, which are not used
            module: nn.Module = models.get_model(name, **nothing)
        return module

    return make


def _own(spec: str) -> nn.Module:
    """The model that a person's own function returns."""
    make = load_object(spec)
    with blamed(spec):
        module = make()
    if not isinstance(module, nn.Module):
        raise InvalidInput(f"{spec} returned a {type(module).__name__}, not a torch.nn.Module")
    return module
