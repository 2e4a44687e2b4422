"""What a file imports, for tests of who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def imports_of(path: Path, *, for_types: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Each module that a file imports, within functions too, and the names that it takes from it.

    What is imported for type checkers alone is left out unless asked `for_types`.
    """
    for name, taken, is_for_types in _written(path):
        if for_types or not is_for_types:
            yield name, taken


@cache
def _written(path: Path) -> list[tuple[str, list[str], bool]]:
    """The imports of a file, and whether each is for type checkers alone."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    for_types = {
        id(node)
        for branch in nodes
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found: list[tuple[str, list[str], bool]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(alias.name, [], id(node) in for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            taken = [alias.name for alias in node.names]
            found.append((str(node.module), taken, id(node) in for_types))
    return found
