"""Arguments of a user's functions, filled in by the names of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import Parameter
from typing import Any

from powerctl.errors import TaskFailed

# the name that we use first, and how else people call the same thing
OBJECTS = (
    ("model", "net", "network"),
    ("loader", "dataloader", "data_loader"),
    ("trainloader", "train_loader", "train_dataloader"),
    ("valloader", "val_loader", "val_dataloader", "validation_loader"),
    ("testloader", "test_loader", "test_dataloader"),
    ("optimizer", "optim"),
    ("batch", "minibatch"),
    ("device",),
)
VALUES = (
    ("partition_id", "client_id"),
    ("num_partitions", "num_clients"),
    ("batch_size",),
    ("epochs", "local_epochs", "num_epochs", "max_epochs"),
    ("lr", "learning_rate"),
    ("path", "dataset_path", "data_path", "data_dir"),
    ("seed", "random_state"),
)
_GROUPS = {name: group for group in (*OBJECTS, *VALUES) for name in group}


def filled(
    function: Callable[..., Any],
    name: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    usual: Mapping[str, Any] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of a call: what the signature asks for, and no more.

    Parameters
    ----------
    function : callable
        The user's; nothing is passed for ``*args`` and ``**kwargs``.
    name : str
        What errors call it: file and function.
    given : mapping of str to object
        What the run has, by the first names of `OBJECTS` and `VALUES`; it comes before settings.
    settings : mapping of str to value
        The user's own keys; hyphens are as underscores.
    usual : mapping of str to object, optional
        For parameters that are in neither and have no default.

    Raises
    ------
    TaskFailed
        If a parameter without a default is in neither.
    """
    keys = {key.replace("-", "_"): value for key, value in settings.items()}
    positional, named = [], {}
    for parameter in parameters_of(function, name):
        found = _found(parameter.name, given, keys)
        if found is Parameter.empty:
            found = _found(parameter.name, usual or {}, {})
            if parameter.default is not Parameter.empty:
                continue
            if found is Parameter.empty:
                raise TaskFailed(
                    f"{name} needs {parameter.name!r}, which nothing gives: the run has "
                    f"{_listed(given)}, the configuration {_listed(settings)}"
                )
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            positional.append(found)
        else:
            named[parameter.name] = found
    return positional, named


def keys_accepted(function: Callable[..., Any], name: str) -> set[str]:
    """The keys of a configuration that a function would be given, with hyphens."""
    objects = {alias for group in OBJECTS for alias in group}
    keys: set[str] = set()
    for parameter in parameters_of(function, name):
        if parameter.name not in objects:
            keys |= {alias.replace("_", "-") for alias in alike(parameter.name)}
    return keys


@lru_cache(maxsize=256)
def parameters_of(function: Callable[..., Any], name: str) -> tuple[Parameter, ...]:
    """The parameters that a function names; an error for one that hides them."""
    try:
        everything = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise TaskFailed(
            f"{name} tells nothing of its parameters: write a Python function"
        ) from None
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    own = tuple(parameter for parameter in everything if parameter.kind not in variable)
    if everything and not own and not inspect.isclass(function):
        raise TaskFailed(
            f"{name} hides its parameters behind *args or **kwargs: name them, or use "
            "functools.wraps in what decorates it"
        )
    return own


def _found(name: str, given: Mapping[str, Any], keys: Mapping[str, Any]) -> Any:
    for source in (given, keys):
        for alias in alike(name):
            if alias in source:
                return source[alias]
    return Parameter.empty


@lru_cache(maxsize=1024)
def alike(name: str) -> tuple[str, ...]:
    """A name, and then the others of the same thing."""
    return (name, *(alias for alias in _GROUPS.get(name, ()) if alias != name))


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
