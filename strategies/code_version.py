"""Which code runs here: so that a server notices a node that runs another checkout.

Ray's workers import the ClientApp from the folder in which a SuperLink was started in preference
to the app that was sent; a stale SuperLink of another checkout would silently train other code.

A version has two halves: a hash of the files, which is quick, and one of what they say without
comments and docstrings, which decides where the first differ.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import powerctl
from powerctl.errors import InvalidInput

CODE = "code"  # the key under which a server tells its own
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
    digest = hashlib.sha256()
    for name, path in _modules():
        digest.update(name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@lru_cache(maxsize=1)
def code_hash() -> str:
    """A short hash of those modules; comments, docstrings and layout do not change it."""
    digest = hashlib.sha256()
    for name, path in _modules():
        digest.update(name.encode())
        for part in _meaning(ast.parse(path.read_bytes())):
            digest.update(part.encode())
    return digest.hexdigest()[:12]


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


def _modules() -> Iterator[tuple[str, Path]]:
    for folder in _SHARED:
        for path in sorted(folder.rglob("*.py")):
            yield path.relative_to(folder.parent).as_posix(), path


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
