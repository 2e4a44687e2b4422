"""What a file imports, for tests of who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def imports_of(path: Path, *, for_types: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Each module that a file imports, within functions too, and the names that it takes from it.

    What is imported for type checkers alone is left out unless asked `for_types`.
    """
    tree = ast.parse(path.read_text())
    left_out = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
        if not for_types
    }
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module), [alias.name for alias in node.names]
