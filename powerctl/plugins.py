"""Things of others: found by ``pkg.mod:Name``, in a file or by an entry point, and checked once.

A *kind* is what can be brought: a policy, a solver, a board. The ones that come with us are its
defaults; a text names one of them, or one of others::

    pace                             built in, or an entry point of an installed package
    my_pkg.policies:Mine             a name in a module: installed, or in the current folder
    path/to/file.py:Mine             a name in a file
    my_pkg.policies:Mine(least=50)   any of them, with parameters
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from powerctl.errors import InvalidInput, PowerctlError, UnknownName

Made = TypeVar("Made")

__path__: list[str] = []  # files of others are modules below this one, see `_Files`


class _Files:
    """Finds the file of others that a module's name spells out.

    The name says where the file is (``powerctl.plugins./home/me/mine%2Epy``), so that it is one
    module per path, hides no other, and what is pickled in it is found again in other processes.
    """

    @staticmethod
    def name_of(path: Path) -> str:
        return f"{__name__}.{str(path).replace('%', '%25').replace('.', '%2E')}"

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        file = name[len(__name__) + 1 :].replace("%2E", ".").replace("%25", "%")
        return spec_from_file_location(name, file) if Path(file).is_file() else None


sys.meta_path.append(_Files)


def load_module(text: str) -> ModuleType:
    """The module of ``path/to/file.py`` or ``pkg.mod``, imported once per process.

    Modules of the current folder are found too, and a file finds what lies beside it.

    Raises
    ------
    InvalidInput
        If there is none, or importing it raises: naming the place in its file. What was raised
        is the cause.
    """
    if text.endswith(".py"):
        path = Path(text).resolve()
        if not path.is_file():
            raise InvalidInput(f"{text}: no such file")
        beside, name = str(path.parent), _Files.name_of(path)
        if beside not in sys.path:
            sys.path.append(beside)  # last: it hides nothing that is installed
    else:
        name = text
        if not all(part.isidentifier() for part in text.split(".")):
            raise InvalidInput(
                f"cannot read {text!r} as a module: write pkg.mod or path/to/file.py"
            )
        if "" not in sys.path:  # as `python -m` does: the module is often beside the person
            sys.path.insert(0, "")
    importlib.invalidate_caches()
    try:
        with blamed(text):
            return importlib.import_module(name)
    except InvalidInput as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise InvalidInput(
                f"{text}: there is no module {cause.name}; run the command in the folder that "
                "holds it, or install it"
            ) from cause
        raise


def load_object(text: str) -> Any:
    """What ``pkg.mod:Name`` or ``path/to/file.py:Name`` names; raises as `load_module` does."""
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise InvalidInput(f"cannot read {text!r}: write pkg.mod:Name or path/to/file.py:Name")
    module = load_module(where)
    try:
        return reduce(getattr, name.split("."), cast(Any, module))
    except AttributeError:
        own = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownName(f"name in {where}", name, own) from None


@contextmanager
def blamed(text: str) -> Iterator[None]:
    """Turn whatever code of others raises into one line: its name, the error, and the place."""
    try:
        yield
    except PowerctlError:
        raise
    except (Exception, SystemExit) as error:  # whatever a person's code may raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidInput(f"{text}: {what}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where in the code of others it was raised: the last line of the file that we entered."""
    if isinstance(error, SyntaxError):  # which says so itself
        return ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and frame.filename[0] != "<"
    ]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def parsed(what: str, text: str) -> tuple[str, dict[str, str]]:
    """Name and parameters of ``NAME(KEY=VALUE, ...)``; `what` it names is for the error."""
    parts = re.fullmatch(r"((?:.*\.py:)?[^()]*)(?:\((.*)\))?", text.strip())
    pairs = [p.split("=") for p in (parts[2] or "").split(",") if p.strip()] if parts else [[]]
    if parts is None or any(len(pair) != 2 for pair in pairs):
        raise InvalidInput(f"cannot read the {what} {text!r}; write NAME or NAME(KEY=VALUE, ...)")
    return parts[1].strip(), {key.strip(): value.strip() for key, value in pairs}


@dataclass(frozen=True)
class Kind(Generic[Made]):
    """A kind of thing that others can bring, and the ones of it that come with us.

    Attributes
    ----------
    what : str
        What it is called in errors.
    group : str
        Entry points of this group are of this kind.
    built_in : mapping
        What comes with us, by name; an entry point of such a name is not looked at, so that our
        names mean the same everywhere.
    expected : type
        A protocol, or an abstract class: what `make` gives has its methods and attributes.
    fixed : sequence of str
        Parameters that are filled in, and that a text cannot set.
    """

    what: str
    group: str
    built_in: Mapping[str, Any]
    expected: Any
    fixed: Sequence[str] = ()

    def names(self) -> list[str]:
        """What can be named: built in, and by the entry points of what is installed."""
        return sorted({*self.built_in, *(entry.name for entry in self._entry_points())})

    def find(self, name: str) -> Any:
        """What a text without parameters names, as it is: a class, a function, or a thing.

        Raises
        ------
        UnknownName, InvalidInput
            If there is none, or it cannot be imported, or two packages have one of that name.
        """
        if name in self.built_in:
            return self.built_in[name]
        if ":" in name:
            return load_object(name)
        found = {entry.value: entry for entry in self._entry_points() if entry.name == name}
        if len(found) > 1:
            raise InvalidInput(
                f"{self.what} {name!r} is the entry point of several packages: "
                f"{', '.join(sorted(found))}; write which"
            )
        if not found:
            raise UnknownName(
                self.what, name, self.names(), "; or your own as pkg.mod:Name or file.py:Name"
            )
        return load_object(next(iter(found.values())).value.replace(" ", ""))

    def make(self, text: str, **filled: Any) -> Made:
        """One of this kind, from ``NAME`` or ``NAME(KEY=VALUE, ...)``.

        Parameters
        ----------
        text : str
        **filled
            What its class or function is given where it has such a parameter; a value of the text
            comes before.

        Raises
        ------
        UnknownName, InvalidInput
            Also if it cannot be made of these parameters, or lacks a method of its kind.
        """
        name, given = parsed(self.what, text)
        make = self.find(name)
        if not callable(make):
            raise InvalidInput(
                f"{name} is {make!r:.60}: a {self.what} is named by its class, or by a function "
                "that makes one"
            )
        parameters = _parameters(make)
        values = {key: value for key, value in filled.items() if key in parameters}
        known = {
            key: values.get(key, usual)
            for key, usual in parameters.items()
            if key not in self.fixed and not key.startswith("_")
        }
        values |= values_of(name, given, known)
        missing = [key for key, usual in parameters.items() if usual is _NONE and key not in values]
        if missing:
            raise InvalidInput(
                f"{name} cannot be made without {', '.join(missing)}: give it a default, or write "
                f"{name}({missing[0]}=...)"
            )
        with blamed(text):
            made = make(**values)
        self._check(name, made)
        return cast(Made, made)

    def _check(self, name: str, made: Any) -> None:
        wanted = _wanted(self.expected)
        lacks = [key for key in wanted if not _has(made, key, self.expected)]
        if lacks:
            raise InvalidInput(
                f"{name} gave a {type(made).__name__} without {', '.join(lacks)}; a {self.what} "
                f"has {', '.join(wanted.values())}"
            )

    def _entry_points(self) -> Any:
        from importlib.metadata import entry_points  # milliseconds, which not every command pays

        return entry_points(group=self.group)


def _wanted(expected: Any) -> dict[str, str]:
    """The methods and attributes of a protocol, or of an abstract class, as people write them."""
    names = getattr(expected, "__abstractmethods__", ()) or dir(expected)
    methods = {
        key: f"{key}({', '.join([*inspect.signature(getattr(expected, key)).parameters][1:])})"
        for key in sorted(names)
        if not key.startswith("_") and callable(getattr(expected, key))
    }
    return methods | {key: key for key in getattr(expected, "__annotations__", {})}


def _has(made: Any, key: str, expected: Any) -> bool:
    """Whether a thing has a method or an attribute, and not only what a protocol says of it."""
    stated = getattr(expected, key, None)
    found = getattr(made, key, None)
    if stated is None:
        return hasattr(made, key)
    return callable(found) and getattr(type(made), key, None) is not stated


def _parameters(make: Callable[..., Any]) -> dict[str, Any]:
    """What a class or function takes by name, and the defaults (`_NONE` where there is none)."""
    try:
        taken = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of some that are written in C
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter.default for parameter in taken if parameter.kind in named}


_NONE = inspect.Parameter.empty


def values_of(name: str, given: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters given, each of the kind of its default; a text where that says nothing.

    Raises
    ------
    UnknownName, InvalidInput
        Listing the known parameters, or naming the value that cannot be read.
    """
    values = {}
    for key, text in given.items():
        if key not in known:
            raise UnknownName(f"parameter of {name}", key, known)
        kind = str if known[key] is None or known[key] is _NONE else type(known[key])
        values[key] = _value(f"{name}({key}=...)", text, kind)
    return values


def _value(what: str, text: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise InvalidInput(f"{what}: {text!r} is no {kind.__name__}") from None
