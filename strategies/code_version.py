"""Which code runs here: so that a server notices a node that runs another checkout.

Ray's workers import the ClientApp from the folder in which a SuperLink was started in preference
to the app that was sent; a stale SuperLink of another checkout would silently train other code.

A version has two halves: a hash of the files, which is quick, and one of what they say without
comments and docstrings, which decides where the first differ. The second takes a second of
processor time, and is kept beside the first for the next process.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import powerctl
from powerctl.durable import home_folder, replace_file
from powerctl.errors import InvalidInput

CODE = "code"  # the key under which a server tells its own
_KEPT = "code-version"  # the file in a person's own folder
_STRATEGIES = Path(__file__).resolve().parent
_SHARED = (
    _STRATEGIES,
    _STRATEGIES.parent / "client",
    Path(powerctl.__file__).resolve().parent,
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_POSITIONLESS = ("ctx", "kind", "type_comment", "type_params")  # no meaning, or not in each Python


def code_version() -> str:
    """The version of the modules that server and clients share: both hashes."""
    return f"{files_hash()}-{code_hash()}"


@lru_cache(maxsize=1)
def files_hash() -> str:
    """A short hash of the files of those modules; a word in a comment changes it."""
    return _hash_of(part for module in _modules() for part in module)


@lru_cache(maxsize=1)
def code_hash() -> str:
    """A short hash of those modules; comments, docstrings and layout do not change it."""
    modules = list(_modules())
    files = _hash_of(part for module in modules for part in module)  # of what is read here
    if known := re.fullmatch(rf"{files}-([0-9a-f]{{12}})", _kept()):
        return known[1]
    code = _hash_of(
        part.encode()
        for name, text in modules
        for part in (name.decode(), *_meaning(ast.parse(text)))
    )
    with suppress(OSError, RuntimeError):  # there is no home, or it is of others: it is found again
        home_folder().mkdir(parents=True, exist_ok=True)
        replace_file(home_folder() / _KEPT, f"{files}-{code}".encode())
    return code


def runs(version: str) -> bool:
    """Whether this process runs the code of a version."""
    files, _, code = version.partition("-")
    return files == files_hash() or code == code_hash()


def check_code_version(version: str) -> None:
    """Raise `InvalidInput` if a server runs other code than this process."""
    if not runs(version):
        raise InvalidInput(
            f"this node runs wattfed {code_version()} from {_STRATEGIES.parent}, the server runs "
            f"{version}: stop the SuperLink and start it in the folder of the app"
        )


def _kept() -> str:
    """The version that a process has found last, if there is one."""
    with suppress(OSError, RuntimeError):
        path = home_folder() / _KEPT
        return path.read_text(errors="replace") if path.is_file() else ""
    return ""


def _modules() -> Iterator[tuple[bytes, bytes]]:
    """Name and text of each module."""
    for folder in _SHARED:
        for path in sorted(folder.rglob("*.py")):
            yield path.relative_to(folder.parent).as_posix().encode(), path.read_bytes()


def _hash_of(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]


def _meaning(node: ast.AST) -> Iterator[str]:
    """A module's syntax tree as texts, equal for all versions of Python."""
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if value is None or name in _POSITIONLESS:
            continue
        values = value if isinstance(value, list) else [value]
        if name == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, False):
            values = values[1:]
        yield f" {name}"
        for one in values:
            if isinstance(one, ast.AST):
                yield from _meaning(one)
            else:
                yield f" {one!r}"
    yield ")"
