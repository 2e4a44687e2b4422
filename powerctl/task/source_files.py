"""The files that a user's task is made of, and the hash that tells whether two are the same."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_INSTALLED = ("site-packages", "dist-packages")  # folders of many packages, not of one task
_OURS = ("powerctl", "wattfed")  # have a version of their own, and may lie beside a task's file
_BY_PATH = "powerctl.plugins."  # how modules are called that were loaded by their path


def sources_of(module: ModuleType) -> dict[str, Path]:
    """The file of a module, and those of its own folder or package that it imports.

    They are found in the text of the imports, so that two processes agree whatever else they have
    imported. What is imported by a name that is made up at run time is not found.

    Returns
    -------
    dict of str to Path
        By the name within the folder, with forward slashes; empty for a module without a file.
    """
    if not getattr(module, "__file__", None):
        return {}
    start = Path(str(module.__file__)).absolute()
    by_path = module.__name__.startswith(_BY_PATH)
    parts = [] if by_path else module.__name__.split(".")
    above = parts if start.stem == "__init__" else parts[:-1]
    root = start.parents[len(above)]
    folder = _Folder(root, root.joinpath(*above[:1]))
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name not in found:
            found[name] = path
            waiting += folder.imported_by(path)
    return dict(sorted(found.items()))


def hash_of(sources: Mapping[str, Path]) -> str:
    """A hash of the contents and names of files; empty for none, which equals no other."""
    if not sources:
        return ""
    whole = hashlib.sha256()
    for name, path in sorted(sources.items()):
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class _Folder:
    """Where imports are looked up, and the part of it that is a task's own."""

    root: Path
    own: Path

    def imported_by(self, path: Path) -> Iterator[Path]:
        """Yield those of the task's own files that a file imports."""
        if self.own.name in _INSTALLED:
            return
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._files(self.root, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = path.parents[node.level - 1] if node.level else self.root
                yield from self._files(base, node.module or "")
                for alias in node.names:  # which may be modules
                    yield from self._files(base, f"{node.module or ''}.{alias.name}".strip("."))

    def _files(self, base: Path, dotted: str) -> Iterator[Path]:
        """The files that run when a module is imported: of its packages, and its own."""
        parts = dotted.split(".") if dotted else []
        if base == self.root and parts:
            if parts[0] in _OURS and self.own == self.root:
                return
            if parts[0] == self.root.name and not (self.root / parts[0]).exists():
                parts = parts[1:]  # a file in a package, loaded by its path, names the package
        at = base
        for here in (None, *parts):
            at = at if here is None else at / here
            for path in (at / "__init__.py", at.with_suffix(".py")):
                if at != self.root and path.is_file() and path.is_relative_to(self.own):
                    yield path
