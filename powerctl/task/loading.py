"""A user's task: found in a file, a module or an object, and called by the names that it has."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from powerctl.errors import InvalidInput, PowerctlError, TaskFailed
from powerctl.plugins import load_module, load_object
from powerctl.reading import in_line, parse_json
from powerctl.task.arguments import filled, keys_accepted
from powerctl.task.source_files import hash_of, sources_of

# what a function does, and how people call it; the first of the names that is there is taken
ROLES = {
    "load_data": ("load_data", "load_data_from_disk"),
    "make_model": ("make_model", "get_model", "Net"),
    "train": ("train", "train_fn"),
    "train_step": ("train_step",),
    "make_optimizer": ("make_optimizer",),
    "test": ("test", "test_fn"),
    "num_examples": ("num_examples",),
    "label_counts": ("label_counts",),
    "central_data": ("central_data", "load_centralized_dataset"),
}
_LONGEST = 1000  # characters of a line that a user's code has us print
# files whose frames at the head of a traceback say nothing to a user
_NOT_THEIRS = (str(Path(__file__).resolve().parents[1]), "<frozen", importlib.__file__)


@dataclass(frozen=True, eq=False)
class Task:
    """What a user wants to be learnt: their functions, and the settings that fill their arguments.

    Attributes
    ----------
    name : str
        Of the module or object.
    where : str
        Its file, as errors name it.
    functions : mapping of str to callable
        By what they do, see `ROLES`.
    sources : mapping of str to Path
        The files that it is made of, by their name within its folder.
    code_hash : str
        Of these files when they were imported; empty where there are none, as for an object made
        in a notebook.
    settings : mapping of str to value
        The user's own keys.
    usual : mapping of str to object
        Arguments of functions that give them no default, and that are in nothing else.
    target : (str, str), optional
        The metric that counts, and ``"max"`` or ``"min"``.
    own : module or object
        What has the functions, and perhaps more that a command knows.
    """

    name: str
    where: str
    functions: Mapping[str, Callable[..., Any]]
    sources: Mapping[str, Path] = field(default_factory=dict)
    code_hash: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)
    target: tuple[str, str] | None = None
    own: Any = None

    def has(self, role: str) -> bool:
        """Whether the task has a function for a role, see `ROLES`."""
        return role in self.functions

    def called(self, role: str) -> str:
        """What errors call a function: its file and its name."""
        name = getattr(self.functions[role], "__name__", role)
        return f"{self.where}: {name}"

    def call(self, role: str, given: Mapping[str, Any]) -> Any:
        """Call a function with what its signature asks for, out of `given` and the settings.

        Raises
        ------
        TaskFailed
            If an argument is missing, or the function raises: with the traceback of the user's
            own code.
        """
        function, name = self.functions[role], self.called(role)
        positional, named = filled(function, name, given, self.settings, self.usual)
        with raised_in(name):
            return function(*positional, **named)

    def with_settings(self, settings: Mapping[str, Any]) -> Task:
        """The same with more settings, which come before those that there are."""
        return replace(self, settings={**self.settings, **settings})


def load_task(
    task: Any, settings: Mapping[str, Any] | None = None, code_hash: str | None = None
) -> Task:
    """The task of a text, a module, or an object.

    Parameters
    ----------
    task : str, module or object
        ``path/my_task.py``, ``pkg.mod``, either with ``:Name`` behind it for an object or class
        within; or what has the functions as attributes. A class is made first, with arguments
        from the settings.
    settings : mapping of str to value, optional
        The user's own keys.
    code_hash : str, optional
        Of its code, where that is known: its files are not looked for then, which for one of ours
        takes half a second.

    Raises
    ------
    TaskFailed
        If it does not import, lacks a function, or names no model.
    """
    settings = dict(settings or {})
    name = task if isinstance(task, str) else ""
    if isinstance(task, str):
        task = _imported(task)
    module, where = _home(task, name)
    if inspect.isclass(task):
        positional, named = filled(task, f"{where}: {task.__name__}", {}, settings)
        with raised_in(f"{where}: {task.__name__}"):
            task = task(*positional, **named)
    sources: Mapping[str, Path] = {}
    if code_hash is None:
        sources, code_hash = ({}, "") if module is None else _code(module)
    functions = _functions(task, where)
    return Task(
        name=_name(task, name),
        where=where,
        functions=functions,
        sources=sources,
        code_hash=code_hash,
        settings=settings,
        target=_target(task, where),
        own=task,
    )


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Keys and values of ``KEY=VALUE``: a number or Boolean where it reads as one, else the text.

    Raises
    ------
    InvalidInput
        For a text without a key, or a number that is not finite.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise InvalidInput(f"--set {in_line(text)}: write KEY=VALUE")
        try:
            found = parse_json(value, "")
        except InvalidInput:
            found = value
        if isinstance(found, float) and not math.isfinite(found):
            raise InvalidInput(f"--set {in_line(text)}: a number must be finite")
        settings[key.strip()] = found
    return settings


def keys_of(task: Task) -> frozenset[str]:
    """The keys of a configuration that the functions of a task accept, with hyphens."""
    return frozenset().union(
        *(keys_accepted(function, task.called(role)) for role, function in task.functions.items())
    )


class raised_in:
    """Turns what a user's code raises in a `with` into one line with its name; ours pass.

    A class, and not a generator: a `with` stands around every minibatch.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        # whatever a person's code may raise, but for what stops the process or the loop
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, PowerctlError):
            what = in_line(f"{type(error).__name__}: {error}", _LONGEST)
            raise TaskFailed(f"{self._name} raised {what}", own_traceback(error)) from error


def own_traceback(error: BaseException) -> str:
    """The traceback of an error from where it enters the user's own code, its lines cut off."""
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    while frames and frames[0].filename.startswith(_NOT_THEIRS):
        del frames[0]
    told.stack = traceback.StackSummary.from_list(frames)
    return "\n".join(line[:_LONGEST] for line in "".join(told.format()).splitlines())


def _imported(text: str) -> Any:
    """The module or object of a text, and the traceback of what its import raised."""
    load = load_module if text.endswith(".py") or ":" not in text else load_object
    try:
        try:
            return load(text)
        except InvalidInput as error:
            if "torchvision::nms" not in str(error.__cause__):
                raise
            from powerctl.torchvision_cpu import import_torchvision

            import_torchvision()  # which the task's own import now finds
            return load(text)
    except InvalidInput as error:
        cause = error.__cause__
        raise TaskFailed(f"task {error}", own_traceback(cause) if cause else "") from cause


@cache
def _code(module: ModuleType) -> tuple[Mapping[str, Path], str]:
    """The files of a module and their hash, as it was imported: it is not imported again."""
    sources = sources_of(module)
    return sources, hash_of(sources)


def _home(task: Any, text: str) -> tuple[ModuleType | None, str]:
    """The module that a task is written in, and its file as errors name it."""
    if isinstance(task, ModuleType):
        module: ModuleType | None = task
    else:
        kind = task if inspect.isclass(task) else type(task)
        module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    written, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    return module, written or name or (
        Path(file).name if file else getattr(task, "__name__", type(task).__name__)
    )


def _name(task: Any, text: str) -> str:
    own = getattr(task, "name", None)
    if isinstance(own, str):
        return own
    if text:
        path, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
        return f"{Path(path).stem if path.endswith('.py') else path}{name and ':'}{name}".strip(":")
    return task.__name__ if isinstance(task, ModuleType) else type(task).__name__


def _functions(task: Any, where: str) -> dict[str, Callable[..., Any]]:
    """The functions of a task by what they do; an error for what is missing."""
    found: dict[str, Callable[..., Any]] = {}
    for role, names in ROLES.items():
        for name in names:
            function = getattr(task, name, None)
            if callable(function):
                found[role] = function
                break
            if function is not None:
                raise TaskFailed(f"{where}: {name} is a {type(function).__name__}, not a function")
    if "make_model" not in found:
        found["make_model"] = _only_model(task, where)
    if "train" in found:  # the user's loop as it is, whatever it is made of
        found.pop("train_step", None)
    for role in ("load_data", "test"):
        if role not in found:
            raise TaskFailed(f"{where} has no function {' or '.join(ROLES[role])}")
    if not found.keys() & {"train", "train_step"}:
        raise TaskFailed(
            f"{where} has no function train(net, trainloader, epochs, lr, device), nor "
            "train_step(model, batch, optimizer, device)"
        )
    return found


def _only_model(task: Any, where: str) -> Callable[..., Any]:
    """The only class of a model that a module defines, which serves as `make_model`."""
    models = [
        value
        for value in getattr(task, "__dict__", {}).values()
        if inspect.isclass(value)
        and value.__module__ == getattr(task, "__name__", "")
        and any(base.__module__ == "torch.nn.modules.module" for base in value.__mro__)
    ]
    if len(models) != 1:
        there = ", ".join(model.__name__ for model in models) or "none"
        raise TaskFailed(
            f"{where} has no function {' or '.join(ROLES['make_model'][:2])}, which returns the "
            f"model; of classes of models, which would do if there were one, it has: {there}"
        )
    return models[0]


def _target(task: Any, where: str) -> tuple[str, str] | None:
    target = getattr(task, "target", None)
    if target is None:
        return None
    if (
        not isinstance(target, (tuple, list))
        or len(target) != 2
        or not isinstance(target[0], str)
        or target[1] not in ("max", "min")
    ):
        raise TaskFailed(
            f'{where}: target is {target!r:.60}; write target = ("a metric that test returns", '
            '"max" or "min")'
        )
    return target[0], target[1]
