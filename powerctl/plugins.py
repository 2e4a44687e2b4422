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
from difflib import get_close_matches
from functools import reduce
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from powerctl.errors import InvalidInput, PowerctlError, UnknownName

if TYPE_CHECKING:  # Python 3.10 has it elsewhere
    from importlib.resources.abc import Traversable

Made = TypeVar("Made")

OF_OTHERS = "; or your own as pkg.mod:Name or path/to/file.py:Name"
OR_A_FILE = f"; or the path of a .toml file{OF_OTHERS}"

__path__: list[str] = []  # files of others are modules below this one, see `_Files`


class NoModule(InvalidInput):
    """There is no module, or no file, of the name that was given."""


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
    NoModule
        If there is none.
    InvalidInput
        If importing it raises: naming the place in its file. What was raised is the cause.
    """
    if text.endswith(".py"):
        path = Path(text).resolve()
        if not path.is_file():
            raise NoModule(f"{text}: no such file")
        beside, name = str(path.parent), _Files.name_of(path)
        if beside not in sys.path:
            sys.path.append(beside)  # last: it hides nothing that is installed
    else:
        name = text
        if not all(part.isidentifier() for part in text.split(".")):
            raise InvalidInput(
                f"cannot read {text!r} as a module: write pkg.mod or path/to/file.py"
            )
        if "" not in sys.path and name.partition(".")[0] not in sys.modules:
            sys.path.insert(0, "")  # as `python -m` does: the module is often beside the person
    importlib.invalidate_caches()
    try:
        with blamed(text):
            return importlib.import_module(name)
    except InvalidInput as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise NoModule(
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
        close = get_close_matches(name, vars(module), n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"{where} has no attribute {name!r}{guess}") from None


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
    _, _, *frames = traceback.extract_tb(error.__traceback__)  # without `blamed` and its caller
    frames = [f for f in frames if f.filename != importlib.__file__ and f.filename[0] != "<"]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def names_code(text: str) -> bool:
    """Whether a text points to code itself, and not to what comes with us or is installed."""
    return ":" in text.partition("(")[0]


def absolute(text: str) -> str:
    """The text with the path of its file made absolute, for processes in other folders."""
    path = re.match(r"[^(]*?\.(?:py(?=:|$)|toml(?=\(|$))", text)
    return f"{Path(path[0]).resolve()}{text[path.end() :]}" if path else text


def split_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names, each once as it is written: a sequence of them, or a text with commas between."""
    names = re.findall(r"[^,()]+(?:\([^()]*\))?", given) if isinstance(given, str) else given
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


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
        What comes with us, by name, or as ``pkg.mod:Name`` where it is only loaded when it is
        found. An entry point of such a name is not looked at: our names mean the same everywhere.
    expected : type
        What `make` gives is of this class; or, of a protocol, has its methods and attributes.
    fixed : sequence of str
        Parameters that are filled in, and that a text cannot set.
    hint : str
        What else can be written, for who wrote a name that there is not.
    """

    what: str
    group: str
    built_in: Mapping[str, Any]
    expected: Any
    fixed: Sequence[str] = ()
    hint: str = OF_OTHERS

    def names(self) -> list[str]:
        """What can be named: built in, and by the entry points of what is installed."""
        return sorted({*self.built_in, *self.others()})

    def others(self) -> Iterator[str]:
        """What the entry points of installed packages add to what is built in."""
        names = {entry.name for entry in self._entry_points()}
        yield from sorted(names - set(self.built_in))

    def find(self, name: str) -> Any:
        """What a text without parameters names, as it is: a class, a function, or a thing.

        Raises
        ------
        UnknownName, InvalidInput
            If there is none, or it cannot be imported, or two packages have one of that name.
        """
        if name in self.built_in:
            found = self.built_in[name]
            return load_object(found) if isinstance(found, str) else found
        if ":" in name:
            try:
                return load_object(name)
            except NoModule as error:  # or a name of ours, misspelt
                raise UnknownName(self.what, name, self.names(), f"; {error}") from error
        found = {entry.value for entry in self._entry_points() if entry.name == name}
        if len(found) > 1:
            raise InvalidInput(
                f"{self.what} {name!r} is the entry point of several packages: "
                f"{', '.join(sorted(found))}; write which"
            )
        if not found:
            raise UnknownName(self.what, name, self.names(), self.hint)
        (value,) = found
        try:
            return load_object(value.replace(" ", ""))
        except NoModule as error:
            raise InvalidInput(f"{self.what} {name!r} of an installed package: {error}") from error

    def takes(self, text: str, parameter: str) -> bool:
        """Whether the class or function that a text names has such a parameter."""
        return parameter in _parameters(self.find(parsed(self.what, text)[0]))

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

    def find_described(self, text: str) -> Path | Traversable | Made:
        """The TOML file that describes what a text names, or the thing itself.

        A file is named by its path, or by a name of ours; others name either in their code, or a
        function that makes the thing.
        """
        if text.endswith(".toml"):
            return Path(text)
        found = self.find(parsed(self.what, text)[0])
        if isinstance(found, str | PathLike):
            return Path(found)
        if text in self.built_in or isinstance(found, self.expected):
            return cast("Traversable | Made", found)
        return self.make(text)

    def _check(self, name: str, made: Any) -> None:
        gave = f"{name} gave a {type(made).__name__}"
        if not getattr(self.expected, "_is_protocol", False):
            if not isinstance(made, self.expected):
                raise InvalidInput(f"{gave}, not a {self.expected.__name__}")
            return
        wanted = _wanted(self.expected)
        if lacks := [key for key in wanted if not _has(made, key, self.expected)]:
            raise InvalidInput(
                f"{gave} without {', '.join(lacks)}; a {self.what} has {', '.join(wanted.values())}"
            )

    def _entry_points(self) -> Any:
        from importlib.metadata import entry_points  # milliseconds, which not every command pays

        return entry_points(group=self.group)


def toml_files(folder: Traversable) -> dict[str, Traversable]:
    """The TOML files of a folder by name, without their ending."""
    return {f.name[:-5]: f for f in folder.iterdir() if f.name.endswith(".toml")}


def _wanted(protocol: Any) -> dict[str, str]:
    """The methods and attributes of a protocol, as people write them."""
    stated = {key: getattr(protocol, key) for key in dir(protocol) if not key.startswith("_")}
    methods = {
        key: f"{key}({', '.join([*inspect.signature(method).parameters][1:])})"
        for key, method in stated.items()
        if callable(method)
    }
    return methods | {
        key: key for key in (*stated, *protocol.__annotations__) if key not in methods
    }


def _has(made: Any, key: str, protocol: Any) -> bool:
    """Whether a thing has a method or an attribute, and not only what the protocol says of it."""
    stated = getattr(protocol, key, None)
    if stated is not None and getattr(type(made), key, None) is stated:
        return False
    return callable(getattr(made, key, None)) if callable(stated) else hasattr(made, key)


def _parameters(make: Callable[..., Any]) -> dict[str, Any]:
    """What a class or function takes by name, and the defaults (`_NONE` where there is none).

    What a class hands on by ``**options`` is what its base class takes.
    """
    try:
        taken = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of some that are written in C
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    hands_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken)
    of_base = _parameters(make.__mro__[1]) if hands_on and isinstance(make, type) else {}
    return of_base | {item.name: item.default for item in taken if item.kind in named}


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
        if not known:
            raise InvalidInput(f"{name} takes no parameters, got {key}={text}")
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
