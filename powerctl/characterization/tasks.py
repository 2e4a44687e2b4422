"""What a study runs: a model, its data on disc, and its loss.

Built in are ``digits`` and ``images``; a person's own model, data set or whole task is named as
``package.module:make`` and found at run time.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from powerctl.characterization import pictures
from powerctl.characterization.storing import FORMS, Sample, StoredSamples, stored
from powerctl.errors import InvalidInput, UnknownName
from powerctl.plugins import blamed, load_object

TASK_NAMES = ("digits", "images")
Loss = Callable[[Any, Any], Tensor]
MakeDataset = Callable[[str], Any]


@dataclass(frozen=True)
class Task:
    """A model and the data that it learns from.

    Attributes
    ----------
    name : str
        For reports.
    make_model : callable
        Gives a fresh ``nn.Module``.
    make_dataset : callable
        Gives a map-style data set of (input, target), of a storage by its name. One with a method
        ``files()`` has those put out of the page cache before the first epoch.
    storages : tuple of str
        The names that it knows; the first is the usual one.
    loss : callable
        Of the model's output and the target.
    """

    name: str
    make_model: Callable[[], nn.Module]
    make_dataset: MakeDataset
    storages: tuple[str, ...] = FORMS
    loss: Loss = nn.functional.cross_entropy


class _InMemory(Protocol):
    """A task of a federation: its samples are tensors, which are stored to be loaded from disc."""

    name: str

    def model(self) -> nn.Module: ...

    def train_samples(self) -> Any: ...


def digits(folder: Path) -> Task:
    """Handwritten digits as PNG files, and a small convolutional network."""
    make = partial(_stored_pictures, folder, "digits", pictures.digits, (1, 8, 8))
    return Task("digits", partial(_small_network, 1), make)


def images(folder: Path, count: int = 640, shape: tuple[int, ...] = (3, 64, 64)) -> Task:
    """Generated JPEG pictures, scaled down when they are loaded, and a small network."""
    make = partial(
        _stored_pictures, folder, f"images {count}", partial(pictures.generated, count), shape
    )
    name = f"images ({count:,} JPEG of 256 x 256, loaded as {shape[1]} x {shape[2]})"
    return Task(name, partial(_small_network, 3), make, loss=_loss_of_any_classes)


def load_task(
    task: str | None,
    folder: Path,
    *,
    model: str | None = None,
    dataset: str | None = None,
    shape: tuple[int, ...] | None = None,
    count: int = 640,
) -> Task:
    """The task of a command line.

    Parameters
    ----------
    task : str, optional
        ``digits``, ``images``, or ``package.module:make`` of a function (or class) without
        arguments, or with the folder for its data, that gives a `Task`, or an object with `model`
        and `train_samples`. By default ``images``.
    folder : Path
        Where samples are stored.
    model : str, optional
        Another model: ``package.module:make``, or a name of torchvision.
    dataset : str, optional
        Other data: ``package.module:make`` of a function without arguments, or with a storage.
    shape : tuple of int, optional
        Of generated pictures, as the model takes them.
    count : int
        How many pictures are generated.

    Raises
    ------
    InvalidInput, UnknownName
        If something is not found, or is not what it should be.
    """
    if shape is not None and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise InvalidInput(f"pictures are 1 or 3 channels, height, width: not {shape}")
    found = _task(task or "images", folder, shape or (3, 64, 64), count)
    if model is not None:
        found = replace(found, name=f"{model} on {found.name}", make_model=_model(model))
    if dataset is not None:
        found = replace(found, name=f"{found.name.partition(' on ')[0]} on {dataset}")
        found = _with_dataset(found, dataset)
    return found


def _task(name: str, folder: Path, shape: tuple[int, ...], count: int) -> Task:
    if name == "digits":
        return digits(folder)
    if name == "images":
        return images(folder, count, shape)
    if ":" not in name:
        raise UnknownName("task", name, TASK_NAMES, "; or your own as package.module:make")
    made = _call(name, folder)
    if isinstance(made, Task):
        return made
    if not hasattr(made, "model") or not hasattr(made, "train_samples"):
        raise InvalidInput(
            f"--task {name} gave a {type(made).__name__}: neither a "
            "powerctl.characterization.tasks.Task nor an object with model() and train_samples()"
        )
    return _of_tensors(made, folder)


def _of_tensors(task: _InMemory, folder: Path) -> Task:
    """A federation's task, with its samples stored as raw arrays of numpy."""

    def samples() -> Iterable[Sample]:
        data = task.train_samples()
        for inputs, label in zip(data.inputs.numpy(), data.labels.tolist(), strict=True):
            target = io.BytesIO()
            np.save(target, inputs)
            yield target.getvalue(), label

    def make(storage: str) -> StoredSamples:
        return _stored(folder, storage, f"{task.name} arrays", samples, _array)

    return Task(task.name, task.model, make)


def _array(encoded: bytes) -> Any:
    return np.load(io.BytesIO(encoded))


def _stored_pictures(
    folder: Path,
    name: str,
    samples: Callable[[], Iterable[Sample]],
    shape: tuple[int, ...],
    storage: str,
) -> StoredSamples:
    return _stored(folder, storage, name, samples, pictures.decoder(shape))


def _stored(
    folder: Path, storage: str, name: str, samples: Callable[[], Iterable[Sample]], decode: Any
) -> StoredSamples:
    """The data set in a storage: ``files`` or ``packed``, ``@FOLDER`` behind it for elsewhere."""
    form, _, elsewhere = storage.partition("@")
    return StoredSamples(stored(Path(elsewhere or folder), form, name, samples), decode)


def _small_network(channels: int) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*block(channels, 16), *block(16, 32), *block(32, 64)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, pictures.N_CLASSES)]
    return nn.Sequential(*layers, *head)


def _loss_of_any_classes(output: Tensor, target: Tensor) -> Tensor:
    # a model of two classes is timed on generated pictures as well as one of a thousand
    return nn.functional.cross_entropy(output, target % output.shape[1])


def _model(spec: str) -> Callable[[], nn.Module]:
    """What makes a model with weights of its own, not on the meta device as for counting."""
    if ":" in spec and not spec.startswith("torchvision:"):

        def make() -> nn.Module:
            made = _call(spec)
            if not isinstance(made, nn.Module):
                raise InvalidInput(f"{spec} gave a {type(made).__name__}, not a torch.nn.Module")
            return made

        return make
    from powerctl.pagoda.models import torchvision_model

    return torchvision_model(spec.removeprefix("torchvision:"))


def _with_dataset(task: Task, spec: str) -> Task:
    make = _named(spec)
    by_storage = _parameters(make) > 0

    def dataset(storage: str) -> Dataset[Any]:
        made = make(storage) if by_storage else make()
        if not isinstance(made, Sized) or not hasattr(made, "__getitem__"):
            raise InvalidInput(f"--dataset {spec} gave a {type(made).__name__}, no map-style data")
        return made  # type: ignore[return-value]

    # whose storages a person must name, as only they know them
    return replace(task, make_dataset=dataset, storages=("",), loss=nn.functional.cross_entropy)


def _call(spec: str, *optional: Any) -> Any:
    """What a function gives, called with as many of the arguments as it takes."""
    make = _named(spec)
    with blamed(spec):
        return make(*optional[: _parameters(make)])


def _named(spec: str) -> Callable[..., Any]:
    found: Callable[..., Any] = load_object(spec)
    if not callable(found):
        raise InvalidInput(f"{spec} is not a function")
    return found


def _parameters(make: Callable[..., Any]) -> int:
    """How many positional arguments a function needs."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(make).parameters.values()
    return sum(p.kind in kinds and p.default is p.empty for p in given)
