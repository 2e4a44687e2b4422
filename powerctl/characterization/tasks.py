"""What a study runs: a task of the user's own, or one of pictures on disc that are built in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from powerctl.characterization import storing as pictures
from powerctl.characterization.storing import FORMS, Sample, StoredSamples, stored
from powerctl.errors import InvalidInput, TaskFailed, UnknownName
from powerctl.plugins import blamed, load_object
from powerctl.task import loading
from powerctl.task.arguments import parameters_of

TASK_NAMES = ("digits", "images")
_LEARNING_RATE, _MOMENTUM = 0.01, 0.9  # POMACS 2022, section 2.1


@dataclass(frozen=True)
class Classifier:
    """A task that learns the classes of samples, which lie in storages of several kinds.

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
    """

    name: str
    make_model: Callable[[], nn.Module]
    make_dataset: Callable[[str], Any]
    storages: tuple[str, ...] = FORMS

    def load_data(self, storage: str, batch_size: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
        """Minibatches to train with, and the same to infer."""
        data = self.make_dataset(storage)
        return DataLoader(data, batch_size, shuffle=True), DataLoader(data, batch_size)

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Stochastic gradient descent with momentum, as in POMACS 2022."""
        return torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE, momentum=_MOMENTUM)

    def train_step(
        self,
        model: nn.Module,
        batch: Any,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        """Forward, backward, and a step of the optimizer."""
        inputs, target = _moved(batch, device)
        optimizer.zero_grad()
        output = _output(model, inputs)
        # a model of two classes is timed on generated pictures as well as one of a thousand
        loss: Any = nn.functional.cross_entropy(output, target % output.shape[1])
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def test(self, model: nn.Module, testloader: Iterable[Any], device: torch.device) -> int:
        """Forward alone; how many minibatches."""
        model.eval()
        count = 0
        for batch in testloader:
            _output(model, _moved(batch, device)[0])
            count += 1
        return count


def digits_task(folder: Path) -> Classifier:
    """Handwritten digits as PNG files, and a small convolutional network."""
    make = partial(_stored_pictures, folder, "digits", pictures.digits, (1, 8, 8))
    return Classifier("digits", partial(_small_network, 1), make)


def images_task(folder: Path, count: int = 640, shape: tuple[int, ...] = (3, 64, 64)) -> Classifier:
    """Generated JPEG pictures, scaled down when they are loaded, and a small network."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InvalidInput(f"pictures are 1 or 3 channels, height, width: not {shape}")
    make = partial(
        _stored_pictures, folder, f"images {count}", partial(pictures.generated, count), shape
    )
    name = f"images ({count:,} JPEG of 256 x 256, loaded as {shape[1]} x {shape[2]})"
    return Classifier(name, partial(_small_network, 3), make)


def load_study_task(
    task: str | None,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    model: str | None = None,
    dataset: str | None = None,
    shape: tuple[int, ...] | None = None,
    count: int = 640,
) -> loading.Task:
    """The task of a command line.

    Parameters
    ----------
    task : str, optional
        ``digits`` or ``images``, or the user's own, see `powerctl.task.loading.load_task`. By
        default ``images``.
    folder : Path
        Where samples are stored.
    settings : mapping of str to value, optional
        For a task of the user's own.
    model : str, optional
        Another model for what is built in: ``package.module:make``, or a name of torchvision.
    dataset : str, optional
        Other data for it: ``package.module:make`` of a function without arguments, or with a
        storage.
    shape : tuple of int, optional
        Of generated pictures, as the model takes them.
    count : int
        How many pictures are generated.

    Raises
    ------
    InvalidInput, UnknownName
        If something is not found, or is not what it should be.
    """
    name = task or "images"
    if name not in TASK_NAMES:
        if model or dataset or shape:
            raise InvalidInput(
                f"--model, --dataset and --input are for the built-in tasks; {name} has its own"
            )
        return _own(name, settings)
    if settings:
        raise InvalidInput(f"--set is for a task of your own; {name} is built in")
    built_in = (
        digits_task(folder)
        if name == "digits"
        else images_task(folder, count, shape or (3, 64, 64))
    )
    if model is not None:
        named = f"{model} on {built_in.name}"
        built_in = replace(built_in, name=named, make_model=_model(model))
    if dataset is not None:
        built_in = _with_dataset(built_in, dataset)
    return loading.load_task(built_in)


def _own(name: str, settings: Mapping[str, Any] | None) -> loading.Task:
    try:
        return loading.load_task(name, settings)
    except TaskFailed as error:
        if name.isidentifier() and isinstance(error.__cause__, ModuleNotFoundError):
            hint = "; or your own as my_task.py or pkg.mod"
            raise UnknownName("task", name, TASK_NAMES, hint) from None
        raise


def _moved(data: Any, device: torch.device) -> Any:
    if isinstance(data, (tuple, list)):
        return [_moved(each, device) for each in data]
    if not isinstance(data, Tensor):
        raise InvalidInput(f"the data set gives a {type(data).__name__} where a tensor belongs")
    return data.to(device, non_blocking=True)


def _output(model: nn.Module, inputs: Any) -> Any:
    """The model's output, of one input or several."""
    return model(*inputs) if isinstance(inputs, list) else model(inputs)


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


def _model(spec: str) -> Callable[[], nn.Module]:
    """What makes a model with weights of its own, not on the meta device as for counting."""
    if ":" not in spec or spec.startswith("torchvision:"):
        from powerctl.pagoda.models import torchvision_model

        return torchvision_model(spec.removeprefix("torchvision:"))
    make: Callable[[], nn.Module] = load_object(spec)

    def made() -> nn.Module:
        with blamed(spec):
            return make()

    return made


def _with_dataset(task: Classifier, spec: str) -> Classifier:
    make = load_object(spec)
    by_storage = any(
        parameter.default is parameter.empty for parameter in parameters_of(make, spec)
    )

    def dataset(storage: str) -> Any:
        with blamed(spec):
            made = make(storage) if by_storage else make()
        if not isinstance(made, Sized) or not hasattr(made, "__getitem__"):
            raise InvalidInput(f"--dataset {spec} gave a {type(made).__name__}, no map-style data")
        return made

    # whose storages a person must name, as only they know them
    name = f"{task.name.partition(' on ')[0]} on {spec}"
    return replace(task, name=name, make_dataset=dataset, storages=("",))
